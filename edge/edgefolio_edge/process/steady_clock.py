"""Clock that no step of the wall clock moves, and that goes on when its process is started again.

Boards without a battery start in 1970 and are corrected by years at every boot. Timers of the decision are seconds
of this clock: it begins with the wall clock's time and then follows the time since boot, which the kernel never sets.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: No clock is later: the year 5138.
_LATEST = 1e11
#: A smaller difference is the wall clock being slewed, and rounding.
_STEP_SECONDS = 1.0


@functools.cache
def boot_id() -> str:
    """The kernel's name for the current boot; containers on one machine share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def seconds_since_boot() -> float:
    """Seconds since boot, with those in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Seconds since the epoch, as far as the wall clock was right when the first process of this boot asked it."""

    def __init__(
        self,
        stored: object = None,
        *,
        wall: Callable[[], float] = lambda: time.time(),
        elapsed: Callable[[], float] = seconds_since_boot,
        boot: str | None = None,
    ) -> None:
        """Go on from ``stored``, a reading that :meth:`reading` gave; anything else is ignored."""
        self._wall = wall
        self._elapsed = elapsed
        self._boot = boot_id() if boot is None else boot
        since_boot = elapsed()
        before = _reading(stored)
        if before is None:
            self._zero = wall() - since_boot
        elif before["boot"] == self._boot and before["sinceBoot"] <= since_boot:
            self._zero = before["time"] - before["sinceBoot"]
        else:
            # Nothing tells how long the machine was off; time goes on, and never back.
            self._zero = max(wall(), before["time"]) - since_boot
        self._offset = 0.0

    def now(self) -> float:
        """Seconds of this clock."""
        return self._zero + self._elapsed()

    def offset(self) -> float:
        """Seconds to add to a time of this clock for the same instant of the wall clock, for people."""
        found = self._wall() - self.now()
        if abs(found - self._offset) > _STEP_SECONDS:
            self._offset = found
        return self._offset

    def reading(self) -> dict[str, Any]:
        """What a later process needs to go on."""
        since_boot = self._elapsed()
        return {"boot": self._boot, "sinceBoot": since_boot, "time": self._zero + since_boot}


def _reading(stored: object) -> Mapping[str, Any] | None:
    if not isinstance(stored, Mapping) or not isinstance(stored.get("boot"), str):
        return None
    for name in ("sinceBoot", "time"):
        value = stored.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
            return None
    return stored if math.isfinite(stored["time"]) else None
