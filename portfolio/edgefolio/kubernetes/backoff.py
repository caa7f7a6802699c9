"""Backoff between list and watch attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

#: A watch of this length resets the backoff; agents ask for watches of two seconds.
_STEADY_SECONDS = 1.0
_JITTER = 1.5


class Backoff:
    """Doubles the pause from 1 to ``longest`` seconds while attempts end at once; a third of each may be random."""

    def __init__(self, *, longest: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._began_at = clock()
        self._attempts = 0

    def begin(self) -> None:
        """An attempt begins."""
        self._began_at = self._clock()

    def next_pause(self, *, is_failure: bool) -> float:
        """Seconds to wait after an attempt.

        A watch that merely ended, or whose version was too old (410), may be repeated once without a pause: API servers
        end watches when they restart. A server that ends every watch at once is not asked in a hot loop.
        """
        if self._clock() - self._began_at >= _STEADY_SECONDS:
            self._attempts = 0
        self._attempts += 1
        doublings = min(self._attempts, 20) - (1 if is_failure else 2)
        return 0.0 if doublings < 0 else min(2.0**doublings, self._longest / _JITTER) * random.uniform(1.0, _JITTER)
