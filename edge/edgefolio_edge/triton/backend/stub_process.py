"""What both of our backends do to the stub that they run in: its shared memory, its threads, its configuration.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any


def close_shared_memory() -> None:
    """Let this user alone read the tensors of requests: Triton makes its regions readable for all, whatever the umask.

    The command line of this process names its region.
    """
    for argument in os.fsdecode(Path("/proc/self/cmdline").read_bytes()).split("\0"):
        name = argument.removeprefix("/")
        with contextlib.suppress(OSError):
            if "/" not in name and (region := Path("/dev/shm", name)).is_file():
                region.chmod(0o600)


def bounded_threads(threads: int) -> int:
    """At most one thread for each core that this process may use: more would take turns on them, and answer later.

    The kubelet's static CPU manager, and limits, bind at each load anew: both may change while the server runs.
    """
    return max(1, math.ceil(min(threads, len(os.sched_getaffinity(0)), _quota())))


def _quota() -> float:
    """Cores that the tightest of the cgroups around this process grants; infinite where none has a limit."""
    root, found = Path("/sys/fs/cgroup"), math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                folder, names = root, "cpu.max"
            elif "cpu" in controllers.split(","):
                folder, names = root / "cpu", "cpu.cfs_quota_us cpu.cfs_period_us"
            else:
                continue
            # In a container the path of the host may not exist: then the root is its group.
            group = folder / path.lstrip("/")
            for place in (group, *group.parents[: len(group.relative_to(folder).parts)]):
                found = min(found, _granted(place, names))
    return found


def _granted(group: Path, names: str) -> float:
    try:
        quota, period = " ".join((group / name).read_text() for name in names.split()).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf  # "max" means no limit


def parameter(configuration: dict[str, Any], name: str, default: str) -> str:
    """A parameter of the model's configuration."""
    value: str = configuration.get("parameters", {}).get(name, {}).get("string_value", default)
    return value
