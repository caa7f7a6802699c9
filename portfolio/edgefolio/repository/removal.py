"""Remove all revisions of one model, and nothing else of the repository."""

from __future__ import annotations

from collections.abc import Callable

from edgefolio.repository import layout
from edgefolio.repository.profiles import delete_profiles
from edgefolio.repository.reading import Repository
from edgefolio.repository.version_files import delete_version


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
        storage.delete(layout.signature_path(model, number))
    on_step("manifests")
    delete_profiles(repository, model)
    on_step("profiles")
    for name in storage.names(layout.versions_folder(model)):
        if layout.number_of(name) is not None:
            delete_version(storage, model, name)
    on_step("files")
    names = storage.names(layout.revisions_folder(model))
    reserved = [found for name in names if (found := layout.number_of(name, layout.RESERVED_SUFFIX)) is not None]
    for number in sorted(reserved)[:-1]:
        storage.delete(layout.reservation_path(model, number))
    on_step("reservations")
    return revisions
