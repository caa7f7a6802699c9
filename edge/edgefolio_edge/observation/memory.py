"""Memory of the server and of its node, from the server's cgroup if that has a limit, else from its processes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgefolio.decision.types import MemoryState
from edgefolio_edge.triton.processes import ProcessIdentity, stubs_of

CGROUPS = Path("/sys/fs/cgroup")
#: Version 1 writes "no limit" as the largest page-aligned number.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, kw_only=True)
class GroupMemory:
    """A cgroup's limit and its working set (without reclaimable page cache), in bytes."""

    limit_bytes: int
    working_set_bytes: int


def observe_memory(server: ProcessIdentity | None, *, limit_bytes: int | None = None) -> MemoryState:
    """The memory now. ``server`` is ``None`` for one on another machine; ``limit_bytes`` is the user's."""
    if server is None:
        return MemoryState(limit_bytes=limit_bytes, working_set_bytes=None, node_available_bytes=None, age_seconds=0.0)
    group = group_memory(server.pid)
    if limit_bytes is None and group is not None:
        limit, used = group.limit_bytes, group.working_set_bytes
        return _state(limit, used)
    return _state(limit_bytes, processes_memory(server))


def processes_memory(server: ProcessIdentity) -> int | None:
    """Proportional set size of the server and its stubs: shared pages count once. ``None`` if the server is gone."""
    own = _proportional_bytes(server.pid)
    if own is None:
        return None
    return own + sum(_proportional_bytes(stub.pid) or 0 for stub in stubs_of(server))


def group_memory(process_id: int, *, root: Path = CGROUPS, processes: Path = Path("/proc")) -> GroupMemory | None:
    """The tightest limited cgroup around a process; ``None`` if none of them has a limit."""
    with contextlib.suppress(OSError, ValueError):
        for line in (processes / str(process_id) / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                found = _tightest(root, path, files=("memory.max", "memory.current", "inactive_file"))
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                found = _tightest(root / "memory", path, files=names)
            else:
                continue
            if found is not None:
                return found
    return None


def _tightest(root: Path, path: str, *, files: tuple[str, str, str]) -> GroupMemory | None:
    """Limits of parents bind too. Inside a container the path of the host may not exist: then its root is the group."""
    group = root / path.lstrip("/")
    candidates = [group, *(parent for parent in group.parents if parent == root or root in parent.parents)]
    found = [memory for directory in candidates if (memory := _group(directory, files=files)) is not None]
    return min(found, key=lambda memory: memory.limit_bytes - memory.working_set_bytes, default=None)


def _group(directory: Path, *, files: tuple[str, str, str]) -> GroupMemory | None:
    limit_file, usage_file, cache_field = files
    try:
        limit_text = (directory / limit_file).read_text().strip()
        usage = int((directory / usage_file).read_text())
        fields = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit_text == "max" or int(limit_text) >= _NO_LIMIT:
        return None
    return GroupMemory(limit_bytes=int(limit_text), working_set_bytes=max(0, usage - int(fields.get(cache_field, 0))))


def _proportional_bytes(process_id: int) -> int | None:
    try:
        for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    # Another user's process shows no such details, but its resident size.
    try:
        return int(psutil.Process(process_id).memory_info().rss)
    except psutil.Error:
        return None


def _state(limit: int | None, used: int | None) -> MemoryState:
    return MemoryState(
        limit_bytes=limit,
        working_set_bytes=used,
        node_available_bytes=int(psutil.virtual_memory().available),
        age_seconds=0.0,
    )
