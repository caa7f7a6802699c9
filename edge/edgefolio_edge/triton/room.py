"""Room for one more version: shared memory, and what Triton says when a resource of the machine runs out.

Such a failure is never a variant's fault: any other variant would fail the same way.
"""

from __future__ import annotations

import os
import resource

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio.shared_memory import shared_memory_bytes
from edgefolio_edge.triton.processes import (
    PROCESSES,
    SHARED_MEMORY,
    ProcessIdentity,
    prefix_in,
    shared_memory_of,
)

#: Parts of Triton's messages (2.51). It cannot poll its repository when it has no file descriptor left; a bad
#: configuration would read the same, but ours are generated.
_SHORTAGES = (
    "shared memory pool size",
    "Unable to initialize shared memory",
    "No space left on device",
    "Too many open files",
    "failed to open directory",
    "failed to poll from model repository",
    "Cannot allocate memory",
)

#: A load opens some twenty at a time: the repository, the model, pipes and shared memory of the new backend.
_FILES_OF_A_LOAD = 64
_REMEDY = "Make it larger: mount -o remount,size=..., or --shm-size of the container."


def is_shortage(message: str) -> bool:
    """Whether ``message`` of Triton says that a resource of the machine has run out."""
    return any(part in message for part in _SHORTAGES)


def size_of_shared_memory() -> int | None:
    """Size of /dev/shm in bytes; ``None`` if there is none. It bounds the batches of a server that is started here."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize


def free_shared_memory() -> int | None:
    """Free bytes of /dev/shm; ``None`` if there is none."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def lack_of_room(manifest: Manifest, server: ProcessIdentity) -> str | None:
    """Why one more version does not find room beside those that ``server`` has loaded, if so."""
    return _lack_of_files(server) or _lack_of_shared_memory(manifest, server)


def _lack_of_files(server: ProcessIdentity) -> str | None:
    """Why ``server`` cannot open what a load needs: it would lose the version that serves, and not find it again."""
    try:
        limit, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        taken = sum(1 for _ in (PROCESSES / str(server.pid) / "fd").iterdir())
    except OSError:
        return None
    if limit == resource.RLIM_INFINITY or limit - taken >= _FILES_OF_A_LOAD:
        return None
    return (
        f"there is no room for open files: {taken} of the {limit} that Triton may have are open, by clients that stay "
        "connected as a rule. Raise the limit (ulimit -n), or close their connections."
    )


def _lack_of_shared_memory(manifest: Manifest, server: ProcessIdentity) -> str | None:
    """Why shared memory does not hold one more version.

    It will be asked for the batches that the serving one was asked for, whose region has grown with them.
    """
    prefix = prefix_in(server.arguments())
    free = free_shared_memory()
    if prefix is None or free is None:
        return None
    regions = [region.stat().st_size for region in shared_memory_of(prefix) if region.exists()]
    batch = min(manifest.request_batch_size, manifest.signature.max_batch_size)
    needed = max([shared_memory_bytes(signature=manifest.signature, batch=batch, resident=1), *regions])
    if free >= needed:
        return None
    return (
        f"there is no room in shared memory: the new version needs {needed >> 20} MiB beside the old one, and "
        f"{free >> 20} MiB of {SHARED_MEMORY} are free. {_REMEDY}"
    )


def require_shared_memory(manifest: Manifest) -> None:
    """Raise :class:`UserError` if two versions of ``manifest`` do not fit for the batch it was profiled with."""
    free, signature = free_shared_memory(), manifest.signature
    batch = min(manifest.request_batch_size, signature.max_batch_size)
    needed = shared_memory_bytes(signature=signature, batch=batch)
    if free is not None and free < needed:
        raise UserError(
            f"there is too little shared memory to serve and to switch: batches of {batch} need {needed >> 20} MiB for "
            "two versions.",
            field=str(SHARED_MEMORY),
            value=f"{free >> 20} MiB free",
            remedy=_REMEDY,
        )


def is_short_of_shared_memory(manifest: Manifest) -> bool:
    """Whether a request within the largest batch may fail for want of shared memory, whatever the variant."""
    free = free_shared_memory()
    signature = manifest.signature
    return free is not None and free < shared_memory_bytes(
        signature=signature, batch=signature.max_batch_size, resident=1
    )
