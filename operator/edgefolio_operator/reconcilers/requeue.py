"""When the next cycle begins: some seconds after the last one, soon after a change, at once after somebody's wish.

Where many endpoints report, something changes all the time; the rest between two cycles then grows with the work of
planning, so that this never takes more than a fifth of one processor. Who edits a portfolio does not wait for that.
"""

from __future__ import annotations

import asyncio
import time

#: A change is rarely alone: so long the cycle waits for what comes with it.
GATHERING_SECONDS = 0.2
#: Seconds of rest for each second of planning.
_REST_TO_WORK = 4.0


class Pace:
    """The time between cycles; ``cycle_seconds`` pass where nothing happens."""

    def __init__(self, *, cycle_seconds: float) -> None:
        self._cycle_seconds = cycle_seconds
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()

    def changed(self) -> None:
        """Something is another than it was."""
        self._changed.set()

    def asked(self) -> None:
        """Somebody wants something else."""
        self._asked.set()
        self._changed.set()

    def begin(self) -> None:
        """A cycle begins: it sees what was asked so far."""
        self._asked.clear()

    async def pause(self, *, planning_seconds: float) -> None:
        """Wait for the next cycle. ``planning_seconds`` are what the last one took beside its writing."""
        ended = time.monotonic()
        # The cycle's own writes are changes, too. What was asked while it wrote it has not seen.
        self._changed.clear()
        if not self._asked.is_set() and not await is_set_within(self._changed, seconds=self._cycle_seconds):
            return
        await asyncio.sleep(min(GATHERING_SECONDS, self._cycle_seconds))
        rest = min(_REST_TO_WORK * planning_seconds, self._cycle_seconds)
        await is_set_within(self._asked, seconds=ended + rest - time.monotonic())


async def is_set_within(event: asyncio.Event, *, seconds: float) -> bool:
    """Whether ``event`` is set before ``seconds`` have passed.

    ``asyncio.wait_for`` forgets a cancellation that comes in the same instant (Python 3.11): an operator that was told
    to end would go on.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
