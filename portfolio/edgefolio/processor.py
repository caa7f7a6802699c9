"""Identity and instruction sets of this machine's processor, from ``/proc/cpuinfo``."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Processor:
    """``model`` is the same on all machines with the same cores; ``flags`` are what all of its cores have."""

    model: str
    flags: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cpuinfo: str) -> Processor:
        """The processor that the text of ``/proc/cpuinfo`` describes; without a name, the machine's architecture.

        On ARM the cores are named by their part numbers, all kinds of them: the kernel's ``model name`` there is the
        architecture's (``ARMv8 Processor rev 1 (v8l)``), and ``Model`` is the board's, with its revision.
        """
        cores = [core for core in map(_fields, cpuinfo.split("\n\n")) if "processor" in core]
        parts = sorted({(core["CPU implementer"], core["CPU part"]) for core in cores if core.keys() >= _PART})
        if parts:
            model = ", ".join(f"implementer {implementer} part {part}" for implementer, part in parts)
        else:
            # Some makers pad the name with blanks.
            model = " ".join(cores[0].get("model name", "").split()) if cores else ""
        flags = [frozenset((core.get("flags") or core.get("Features") or "").split()) for core in cores]
        return cls(
            model=model or platform.processor() or platform.machine(),
            flags=frozenset.intersection(*flags) if flags else frozenset(),
        )


_PART = {"CPU implementer", "CPU part"}


def this_processor() -> Processor:
    """The processor of this machine."""
    try:
        return Processor.of(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Processor.of("")


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
