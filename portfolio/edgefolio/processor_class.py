"""Identity, instruction sets and class of a processor, from the text of ``/proc/cpuinfo``. Reads nothing itself."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Instruction sets that change how fast a network runs (x86 and ARM names as the kernel gives them). They are part of
#: a class's name: a longer list is other classes, and profiles of before are no longer those of their machines.
RELEVANT_FLAGS = (
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
#: Those that multiply 8-bit integers: without them an int8 variant can be slower than its float parent.
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
_ARM_FLAGS = frozenset({"neon", "asimd", "sve"})
_LONGEST_SLUG = 44


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

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """The relevant ones of its flags, in one order everywhere."""
        return tuple(name for name in RELEVANT_FLAGS if name in self.flags)

    @property
    def is_arm(self) -> bool:
        """Whether its instruction sets are ARM's."""
        return bool(_ARM_FLAGS & self.flags)

    @property
    def class_name(self) -> str:
        """The name of its class; see :func:`class_of`."""
        return class_of(self.model, self.flags)


def class_of(model: str, flags: Iterable[str]) -> str:
    """The class of processors on which one profile holds: model and relevant instruction sets, as one path segment.

    The same name in a profile, in an agent and in an operator. A virtual machine that hides an instruction set is of
    another class than one that does not.
    """
    have = frozenset(flags)
    identity = json.dumps([model, [name for name in RELEVANT_FLAGS if name in have]])
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower())[:_LONGEST_SLUG].strip("-") or "processor"
    return f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


_PART = {"CPU implementer", "CPU part"}


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
