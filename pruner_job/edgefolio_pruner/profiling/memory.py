"""Memory of this process from the kernel, in bytes."""

from __future__ import annotations

import contextlib
from pathlib import Path

_STATUS = Path("/proc/self/status")
_SMAPS = Path("/proc/self/smaps_rollup")
_CLEAR = Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """Memory that is resident now, shared pages counted whole (VmRSS)."""
    return _kilobytes(_STATUS, "VmRSS") * 1024


def proportional_bytes() -> int:
    """Memory that is resident now, shared pages counted by their share (PSS); VmRSS where the kernel has no PSS."""
    try:
        return _kilobytes(_SMAPS, "Pss") * 1024
    except (OSError, KeyError):
        return resident_bytes()


def peak_resident_bytes() -> int:
    """The highest VmRSS since :func:`reset_peak`, or since the process began (VmHWM)."""
    return _kilobytes(_STATUS, "VmHWM") * 1024


def reset_peak() -> None:
    """Reset :func:`peak_resident_bytes`; no effect where the kernel forbids it."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def _kilobytes(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        label, _, value = line.partition(":")
        if label == name:
            return int(value.split()[0])
    raise KeyError(name)
