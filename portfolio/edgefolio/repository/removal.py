"""Removal of revisions of one model: those beyond the history limit, or all."""

from __future__ import annotations

from collections.abc import Callable, Collection

from edgefolio.manifest import VERSIONS_PER_REVISION
from edgefolio.repository import layout
from edgefolio.repository.reading import Repository


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
    for name in storage.names(layout.versions_folder(model)):
        version = layout.number_of(name)
        if version is None:
            continue
        number = version // VERSIONS_PER_REVISION
        if number in removed or (number < oldest_kept and number not in complete):
            storage.delete(layout.version_path(model, name))
    return removed


def remove_model(
    repository: Repository, model: str, *, on_step: Callable[[str], None] = lambda _step: None
) -> tuple[int, ...]:
    """Remove everything published for ``model``; the numbers of the revisions that were still there.

    The pointer goes first, then the manifests, then the files: at no instant does a reader find one without what it
    names. Interrupted and started again, it goes on. The reservation of the highest number stays, so that whoever
    publishes this model here again begins above it: a number never means two things.
    """
    storage = repository.storage
    revisions = repository.revisions(model)
    storage.delete(layout.pointer_path(model))
    on_step("pointer")
    for number in reversed(revisions):
        storage.delete(layout.manifest_path(model, number))
    on_step("manifests")
    for name in storage.names(layout.versions_folder(model)):
        if layout.number_of(name) is not None:
            storage.delete(layout.version_path(model, name))
    on_step("files")
    names = storage.names(layout.revisions_folder(model))
    reserved = [found for name in names if (found := layout.number_of(name, layout.RESERVED_SUFFIX)) is not None]
    for number in sorted(reserved)[:-1]:
        storage.delete(layout.reservation_path(model, number))
    on_step("reservations")
    return revisions
