"""Periodic rewrite of unchanged statuses, to undo foreign edits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable

REWRITE_SECONDS = 300.0
#: Jitter, so that a site's portfolios are not all written in one second.
_JITTER = 0.2


class StatusResync:
    """Time of the next rewrite of each status; one that was never written is due."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[Hashable, float] = {}

    def is_due(self, key: Hashable) -> bool:
        """Whether the status is to be written although nothing changed."""
        return self._clock() >= self._next.get(key, float("-inf"))

    def written(self, key: Hashable) -> None:
        """Restart the timer after a write."""
        self._next[key] = self._clock() + REWRITE_SECONDS * random.uniform(1 - _JITTER, 1 + _JITTER)

    def forget(self, key: Hashable) -> None:
        """Drop the timer of a deleted object."""
        self._next.pop(key, None)
