"""Turns of agents that know nothing of each other and may want the same memory of their node."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

#: The longest wait for a turn. A load takes a second or two; the longer this is, the seldomer two begin at once.
LONGEST_SECONDS = 30.0


class Turn:
    """Random wait before memory is taken that the node has but once.

    Agents that want it in the same second have seen the same free memory. Each waits a time of its own and looks again:
    what another has taken by then shows in the node's figure, and is wanted no more.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock, self._draw = clock, draw
        self._wanted: object = None
        self._from = 0.0

    def has_come(self, wanted: object) -> bool:
        """Whether ``wanted`` has been asked for, and for nothing else in between, until its time."""
        if self._wanted != wanted:
            self._wanted, self._from = wanted, self._clock() + self._draw(0.0, LONGEST_SECONDS)
        return self._clock() >= self._from

    def forget(self) -> None:
        """Nothing is wanted now."""
        self._wanted = None
