"""The processor of this machine, from ``/proc/cpuinfo``."""

from __future__ import annotations

from pathlib import Path

from edgefolio.processor_class import Processor

__all__ = ["Processor", "this_processor"]


def this_processor() -> Processor:
    """The processor of this machine."""
    try:
        return Processor.of(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Processor.of("")
