"""Contention for the server's processors: throttling and pressure of its control group, steal time of the machine.

Each sign is read where the kernel gives it (control groups of version 1 and 2, pressure stall information since Linux
4.20) and left out elsewhere. Shares are of the time between two readings.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgefolio.decision.types import Contention, Signal
from edgefolio_edge.observation.memory import CGROUPS

_NAMES = ("throttled", "pressure", "stolen")
#: Shares over less than this are noise; the last ones then stand.
_LEAST_SECONDS = 0.2


class ContentionObserver:
    """Signs of contention around one process; ``None`` is one on another machine, of which nothing is known."""

    def __init__(
        self,
        process_id: int | None,
        *,
        root: Path = CGROUPS,
        processes: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = [] if process_id is None else _groups(process_id, root=root, processes=processes)
        self._processes = processes
        self._is_local = process_id is not None
        self._clock = clock
        self._before: dict[str, tuple[float, float]] = {}
        self._signals: dict[str, tuple[float, float]] = {}
        #: What was observed last.
        self.last: Contention | None = None

    def observe(self) -> Contention | None:
        """The signs now, each with its age; ``None`` if there is none."""
        if not self._is_local:
            return None
        now = self._clock()
        for name, seconds in self._counters().items():
            at, before = self._before.get(name, (now, seconds))
            if now - at >= _LEAST_SECONDS:
                self._signals[name] = now, min(100.0, max(0.0, 100 * (seconds - before) / (now - at)))
            elif name in self._before:
                continue
            self._before[name] = now, seconds
        found = {name: Signal(percent=percent, age_seconds=now - at) for name, (at, percent) in self._signals.items()}
        self.last = replace(Contention(), **found) if found else None
        return self.last

    def _counters(self) -> dict[str, float]:
        """By sign: the seconds for which it has held so far."""
        throttled = [value for group in self._groups if (value := _throttled(group)) is not None]
        pressure = [value for group in self._groups if (value := _pressure(group / "cpu.pressure")) is not None]
        if not pressure and (whole := _pressure(self._processes / "pressure" / "cpu")) is not None:
            pressure.append(whole)
        found = {
            # A group is kept from running by the tightest limit around it.
            "throttled": max(throttled, default=None),
            "pressure": pressure[0] if pressure else None,
            "stolen": _stolen(self._processes / "stat"),
        }
        return {name: value for name in _NAMES if (value := found[name]) is not None}


def _groups(process_id: int, *, root: Path, processes: Path) -> list[Path]:
    """The control groups that govern the processors of a process, innermost first; those that can be seen."""
    with contextlib.suppress(OSError, ValueError):
        for line in (processes / str(process_id) / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" and not controllers:
                base = root
            elif "cpu" in controllers.split(","):
                base = root / controllers if (root / controllers).is_dir() else root / "cpu"
            else:
                continue
            group = base / path.lstrip("/")
            found = [entry for entry in (group, *group.parents) if entry == base or base in entry.parents]
            if found := [entry for entry in found if (entry / "cpu.stat").is_file()]:
                return found
    return []


def _throttled(group: Path) -> float | None:
    try:
        fields = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        if "throttled_usec" in fields:
            return int(fields["throttled_usec"]) / 1e6
        return int(fields["throttled_time"]) / 1e9 if "throttled_time" in fields else None
    except (OSError, ValueError):
        return None


def _pressure(path: Path) -> float | None:
    try:
        some = next(line for line in path.read_text().splitlines() if line.startswith("some "))
        return int(dict(field.split("=") for field in some.split()[1:])["total"]) / 1e6
    except (OSError, ValueError, KeyError, StopIteration):
        return None


def _stolen(path: Path) -> float | None:
    """Steal time as a share of all processors' time, in seconds of one machine."""
    try:
        with path.open() as stream:
            fields = [int(field) for field in stream.readline().split()[1:]]
        processors = sum(1 for line in path.read_text().splitlines() if line[:3] == "cpu" and line[3:4].isdigit())
        return fields[7] / _TICKS / max(1, processors)
    except (OSError, ValueError, IndexError):
        return None


#: Clock ticks a second in /proc/stat: the same on every Linux that runs Triton.
_TICKS = 100
