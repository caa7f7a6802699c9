"""The processor this machine has, by the name that profiles carry."""

from __future__ import annotations

import platform
from pathlib import Path


def processor_model() -> str:
    """The CPU's model name as Linux gives it; the architecture where it gives none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
