"""Environment of a profile: processor, instruction sets, quota, runtime."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgefolio.manifest import Environment
from edgefolio.processor import this_processor

_CGROUP = Path("/sys/fs/cgroup")


def describe_environment(*, threads: int, onnxruntime_version: str) -> Environment:
    """The environment of this process, for profiles on ``threads`` threads."""
    processor = this_processor()
    return Environment(
        cpu_model=processor.model,
        instruction_sets=processor.instruction_sets,
        logical_cpus=len(os.sched_getaffinity(0)),
        cpu_quota=cpu_quota(),
        threads=threads,
        onnxruntime_version=onnxruntime_version,
        platform=f"{platform.system().lower()}-{platform.machine()}",
    )


def cpu_quota(cgroup: Path = _CGROUP) -> float | None:
    """CPU quota of the cgroup (v2, then v1); ``None`` if unlimited."""
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()[:2]
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_microseconds = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period_microseconds
    except (OSError, ValueError):
        return None
