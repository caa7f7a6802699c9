"""Memory that this process may still take, and the refusal of inputs that need more.

Small files may hold sizes of any height: compressed arrays, pictures, headers. What an input takes is read off its
header and compared with what there is before anything is unpacked.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edgefolio.errors import TransientError, UserError
from edgefolio.specification.validation.base import bytes_of

_CGROUPS = Path("/sys/fs/cgroup")
# Limit, usage, and the field of memory.stat with the page cache that is given back at once.
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_BLOCK = 16 << 20
#: torch and ONNX Runtime alone take half of it.
_LEAST_MEMORY = 1 << 30
#: Memory that this process is to stay within, if it is told.
_TOLD: ContextVar[int | None] = ContextVar("memory that a run may take", default=None)
#: Steps that could use more plan with so much.
_LARGEST_PLAN = 16 << 30
_REMEDY = "Give smaller or fewer samples, or more memory (--memory; in a cluster spec.job.resources)."


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that this process may still take: ``free`` now, ``most`` if nobody else had any."""

    free: int
    most: int


def available_memory(*, cgroups: Path = _CGROUPS, processes: Path = Path("/proc")) -> Memory:
    """The least of what the machine, the process's cgroups, its own limit (``ulimit -v``) and :func:`bounded` allow."""
    machine, own = psutil.virtual_memory(), psutil.Process().memory_info()
    bounds = [Memory(free=machine.available, most=machine.total - own.rss)]
    bounds += [Memory(free=limit - used, most=limit - own.rss) for limit, used in _cgroup_bounds(cgroups, processes)]
    told = _TOLD.get()
    if told is not None:
        bounds.append(Memory(free=told - own.rss, most=told - own.rss))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        bounds.append(Memory(free=limit - own.vms, most=limit - own.vms))
    return Memory(
        free=max(0, min(bound.free for bound in bounds)),
        most=max(0, min(bound.most for bound in bounds)),
    )


@contextlib.contextmanager
def bounded(limit: int | None) -> Iterator[None]:
    """Plan with ``limit`` bytes for this process, all it holds already included; ``None``: with what is free."""
    token = _TOLD.set(limit)
    try:
        yield
    finally:
        _TOLD.reset(token)


def told_memory() -> int | None:
    """The limit of :func:`bounded`, if there is one."""
    return _TOLD.get()


def give_back() -> None:
    """Return what this process has freed to the system: the C library keeps it, and it would count as used.

    Of a run on VGG-16 it kept a gigabyte. Where the library cannot (musl), nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_to_plan_with() -> int:
    """Bytes that are free, rounded down to a power of two, so that a little more or less changes no result."""
    give_back()
    return 1 << max(0, min(available_memory().free, _LARGEST_PLAN).bit_length() - 1)


def memory_argument(text: str) -> int:
    """The bytes of ``--memory``. Raises :class:`UserError` if they are too few for anything, or no quantity."""
    try:
        limit = bytes_of(text)
    except ValueError:
        limit = 0
    if limit < _LEAST_MEMORY:
        raise UserError(
            "this is no quantity of at least 1Gi.", field="--memory", value=text, remedy="Write for example 4Gi."
        )
    return limit


def require_memory(needed: int, *, what: str, field: str, value: object) -> None:
    """Raise :class:`UserError` for ``field`` if ``what`` needs more than there is.

    It is a :class:`~edgefolio.errors.TransientError` if it would fit into memory that others use at the moment.
    """
    memory = available_memory()
    if needed <= memory.free:
        return
    kind = UserError if needed > memory.most else TransientError
    raise kind(
        f"{what} takes at least {shown_bytes(needed)} of memory, and {shown_bytes(memory.free)} are free.",
        field=field,
        value=value,
        remedy=_REMEDY,
    )


def read_bounded(stream: Any, *, field: str, value: object) -> bytes:
    """All bytes of ``stream``, of a known or unknown length, as long as they fit into memory."""
    try:
        require_memory(_size_of(stream), what="the file", field=field, value=value)
        blocks = io.BytesIO()
        while block := stream.read(_BLOCK):
            require_memory(2 * len(block), what="the file", field=field, value=value)
            blocks.write(block)
        return blocks.getvalue()
    except MemoryError as error:
        raise UserError(
            "the file does not fit into the available memory.", field=field, value=value, remedy=_REMEDY
        ) from error


def _size_of(stream: Any) -> int:
    """Bytes of an open file; 0 where that is not known beforehand."""
    size = getattr(stream, "size", None)
    if isinstance(size, int):
        return size
    # A device or a pipe has the size 0. Streams from a store have no number.
    with contextlib.suppress(AttributeError, OSError):
        return os.fstat(stream.fileno()).st_size
    return 0


def _cgroup_bounds(root: Path, processes: Path) -> Iterator[tuple[int, int]]:
    """Limit and usage of each limited cgroup around this process."""
    with contextlib.suppress(OSError):
        for line in (processes / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            base, files = (root / "memory", _VERSION_1) if controllers else (root, _VERSION_2)
            # Limits of parents bind too. In a container the host's path does not exist: then the root is the group.
            group = base / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder == base or base in folder.parents:
                    yield from _cgroup_bound(folder, *files)


def _cgroup_bound(folder: Path, limit_file: str, usage_file: str, cache_field: str) -> Iterator[tuple[int, int]]:
    with contextlib.suppress(OSError, ValueError):
        # "max" is no limit, and no number.
        limit = int((folder / limit_file).read_text())
        usage = int((folder / usage_file).read_text())
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield limit, usage - int(fields.get(cache_field, 0))


def shown_bytes(count: int) -> str:
    """``count`` bytes for people: ``1.5 GiB``."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
