"""A cycle comes soon after a change, rests in proportion to its work, and does not keep people waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edgefolio_operator.reconcilers.requeue import GATHERING_SECONDS, Pace

#: So long that a test which waited for it would be seen to hang.
LONG = 60.0


def paused(happens: Callable[[Pace], None], *, planning_seconds: float = LONG, before: bool = False) -> bool:
    """Whether a pause ends soon when ``happens`` does, in the midst of it or ``before`` it."""

    async def running() -> bool:
        pace = Pace(cycle_seconds=LONG)
        pace.begin()
        if before:
            happens(pace)
        pause = asyncio.create_task(pace.pause(planning_seconds=planning_seconds))
        await asyncio.sleep(0.01)
        if not before:
            happens(pace)
        done, _ = await asyncio.wait({pause}, timeout=GATHERING_SECONDS + 0.5)
        pause.cancel()
        await asyncio.gather(pause, return_exceptions=True)
        return bool(done)

    return asyncio.run(running())


@pytest.mark.parametrize("before", [False, True], ids=["while it rests", "while it wrote"])
def test_a_wish_ends_the_rest(before: bool) -> None:
    assert paused(Pace.asked, before=before)


def test_a_change_does_not_end_the_rest_after_much_work() -> None:
    assert not paused(Pace.changed)


def test_a_change_ends_the_rest_after_little_work() -> None:
    assert paused(Pace.changed, planning_seconds=0.001)


def test_what_the_cycle_itself_wrote_is_no_reason_for_the_next() -> None:
    assert not paused(Pace.changed, planning_seconds=0.001, before=True)


def test_a_wish_that_the_cycle_has_seen_is_no_reason_for_the_next() -> None:
    def asked_and_seen(pace: Pace) -> None:
        pace.asked()
        pace.begin()

    assert not paused(asked_and_seen, before=True)


def test_nothing_happens_for_as_long_as_said() -> None:
    async def running() -> None:
        pace = Pace(cycle_seconds=0.05)
        pace.begin()
        await asyncio.wait_for(pace.pause(planning_seconds=LONG), timeout=30)

    asyncio.run(running())
