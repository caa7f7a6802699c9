"""Keyed work queue: a portfolio is handed to one worker at a time, soon after a change and else every few seconds.

Under constant change (many reporting endpoints) planning takes at most a fifth of one processor, and
no key waits longer than one requeue for that. Users' changes do not wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edgefolio_operator.ownership import PortfolioKey

#: Debounce delay of a key: changes rarely come alone.
GATHERING_SECONDS = 0.2
#: Seconds of rest per second of planning.
_REST_TO_WORK = 4.0


class WorkQueue:
    """Portfolios to be reconciled; each comes back ``requeue_seconds`` after it is done."""

    def __init__(self, *, requeue_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._requeue_seconds = requeue_seconds
        self._gathering_seconds = min(GATHERING_SECONDS, requeue_seconds)
        self._clock = clock
        self._due: dict[PortfolioKey, float] = {}
        self._urgent: set[PortfolioKey] = set()
        self._active: dict[PortfolioKey, float] = {}
        self._rests_until = float("-inf")
        self._added = asyncio.Event()
        self._taking = asyncio.Lock()

    def add(self, key: PortfolioKey, *, urgent: bool = False) -> None:
        """Reconcile ``key`` soon; an ``urgent`` one does not rest for earlier planning.

        A change during a key's work is mostly its worker's own write: it waits for the requeue,
        unless it is urgent.
        """
        if urgent:
            self._urgent.add(key)
        if key not in self._active:
            due = self._clock() + self._gathering_seconds
            self._due[key] = min(due, self._due.get(key, due))
            self._added.set()

    async def take(self) -> PortfolioKey:
        """Wait for the next key that is due; its worker must call :meth:`done`."""
        async with self._taking:
            while True:
                self._added.clear()
                now = self._clock()
                key = min(self._due, key=self._ready_at, default=None)
                wait = None if key is None else self._ready_at(key) - now
                if key is not None and wait is not None and wait <= 0:
                    del self._due[key]
                    self._urgent.discard(key)
                    self._active[key] = now
                    return key
                await is_set_within(self._added, seconds=wait)

    def planned(self, planning_seconds: float) -> None:
        """Rest from now on in proportion to the planning time."""
        now = self._clock()
        rest = max(self._rests_until - now, 0.0) + _REST_TO_WORK * planning_seconds
        self._rests_until = now + min(rest, self._requeue_seconds)

    def done(self, key: PortfolioKey, *, requeue: bool = True) -> None:
        """The worker is finished with ``key``, which comes back if ``requeue`` or if it is urgent again."""
        del self._active[key]
        if key in self._urgent:
            self.add(key)
        elif requeue:
            self._due[key] = self._clock() + self._requeue_seconds
            self._added.set()

    @property
    def active_seconds(self) -> dict[PortfolioKey, float]:
        """How long each key has been worked on."""
        now = self._clock()
        return {key: now - since for key, since in self._active.items()}

    @property
    def stuck_seconds(self) -> float:
        """How long no worker has been free for the oldest waiting key; a single hung key blocks none."""
        if not self._due:
            return min(self.active_seconds.values(), default=0.0)
        return max(0.0, self._clock() - min(map(self._ready_at, self._due)))

    def _ready_at(self, key: PortfolioKey) -> float:
        due = self._due[key]
        return due if key in self._urgent else max(due, min(self._rests_until, due + self._requeue_seconds))


async def is_set_within(event: asyncio.Event, *, seconds: float | None) -> bool:
    """Whether ``event`` is set before ``seconds`` have passed.

    ``asyncio.wait_for`` loses a cancellation that comes in the same instant (Python 3.11): a stopped operator
    would go on.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
