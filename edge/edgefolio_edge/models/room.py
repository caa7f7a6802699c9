"""Room for a revision: what the node grants, and what its disk has left, beside what serves."""

from __future__ import annotations

from collections.abc import Iterable

from edgefolio.decision.estimates.memory import mebibytes
from edgefolio.errors import EdgefolioError
from edgefolio.manifest import Manifest
from edgefolio_edge.models.model_store import ModelStore

#: A disk keeps this much for state files and logs.
RESERVE_BYTES = 64 << 10


class InsufficientStorageError(EdgefolioError):
    """A revision needs more storage than the node grants or its disk has."""


def require_room(
    store: ModelStore,
    manifest: Manifest,
    *,
    current: Manifest | None,
    granted_bytes: int | None,
    served_versions: Iterable[int] | None,
) -> None:
    """Raise :class:`InsufficientStorageError` if ``manifest`` does not fit beside ``current``, which serves.

    Revisions that neither serve nor are wanted make room first. A first revision serves variant by variant, so it may
    fill the disk: what fits of it is better than nothing.
    """

    def fits() -> bool:
        return _beyond_grant(store, missing, granted_bytes) is None and (current is None or _fits_disk(store, missing))

    missing = store.missing_bytes(manifest)
    if not fits() and served_versions is not None:
        kept = {manifest.revision, *([current.revision] if current is not None else [])}
        store.keep_only(kept, served_versions=served_versions)
    occupied = _beyond_grant(store, missing, granted_bytes)
    if occupied is not None and granted_bytes is not None:
        beside = f" beside the {mebibytes(occupied)} that are in use" if occupied else ""
        raise InsufficientStorageError(
            f"revision {manifest.revision} needs {mebibytes(missing)}{beside}; {mebibytes(granted_bytes)} are "
            "granted. Raise spec.serving.managed.storage.sizeLimit, or make fewer or smaller variants."
        )
    if not fits():
        raise disk_full(store, manifest, missing)


def disk_full(store: ModelStore, manifest: Manifest, missing: int) -> InsufficientStorageError:
    """The error of a revision that does not fit on the disk of this machine."""
    return InsufficientStorageError(
        f"revision {manifest.revision} needs {mebibytes(missing)} more; the disk of this machine has "
        f"{mebibytes(store.free_bytes())} left at {store.model_repository}. "
        "Free space there, or make fewer or smaller variants."
    )


def _beyond_grant(store: ModelStore, missing: int, granted_bytes: int | None) -> int | None:
    """What is in use, if ``missing`` bytes more are not granted."""
    if granted_bytes is None:
        return None
    occupied = store.occupied_bytes()
    return occupied if occupied + missing > granted_bytes else None


def _fits_disk(store: ModelStore, missing: int) -> bool:
    return not missing or missing + RESERVE_BYTES <= store.free_bytes()
