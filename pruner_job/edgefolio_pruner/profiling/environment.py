"""Environment of a profile: processor, instruction sets, quota, runtime."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edgefolio.manifest import Environment
from edgefolio.processor import this_processor

_CGROUP = Path("/sys/fs/cgroup")
#: Instruction sets that change how fast a network runs (x86 and ARM names as the kernel gives them).
_RELEVANT = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "sve",
    "sve2",
    "i8mm",
    "bf16",
)


def describe_environment(*, threads: int, onnxruntime_version: str) -> Environment:
    """The environment of this process, for profiles on ``threads`` threads."""
    processor = this_processor()
    return Environment(
        cpu_model=processor.model,
        instruction_sets=tuple(name for name in _RELEVANT if name in processor.flags),
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
