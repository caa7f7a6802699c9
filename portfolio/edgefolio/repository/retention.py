"""Remove revisions beyond the history limit."""

from __future__ import annotations

from collections.abc import Collection

from edgefolio.manifest import VERSIONS_PER_REVISION
from edgefolio.repository import layout
from edgefolio.repository.profiles import delete_profiles
from edgefolio.repository.reading import Repository
from edgefolio.repository.version_files import delete_version


def remove_old_revisions(
    repository: Repository, model: str, *, history_limit: int, in_use: Collection[int]
) -> tuple[int, ...]:
    """Remove all but the newest ``history_limit`` revisions of ``model`` and those ``in_use``; returns their numbers.

    Remains of killed publishers below the oldest kept revision go too. Reservations stay: their numbers are spent for
    good. A manifest goes before its files, so that no reader finds one without the other.
    """
    storage = repository.storage
    complete = repository.revisions(model)
    kept = {*complete[-max(1, history_limit) :], *in_use}
    oldest_kept = min(kept)
    removed = tuple(number for number in complete if number not in kept)
    for number in removed:
        storage.delete(layout.manifest_path(model, number))
        storage.delete(layout.signature_path(model, number))

    def is_gone(number: int) -> bool:
        return number in removed or (number < oldest_kept and number not in complete)

    delete_profiles(repository, model, of=is_gone)
    for name in storage.names(layout.versions_folder(model)):
        version = layout.number_of(name)
        if version is not None and is_gone(version // VERSIONS_PER_REVISION):
            delete_version(storage, model, name)
    return removed
