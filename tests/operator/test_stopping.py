"""An operator that is told to end does, whatever happens in the same instant."""

from __future__ import annotations

import asyncio

import pytest

from edgefolio_operator.reconcilers.work_queue import is_set_within


def test_a_change_in_the_instant_of_the_end_does_not_hide_it() -> None:
    async def running() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(is_set_within(event, seconds=60))
        for _ in range(5):
            await asyncio.sleep(0)
        event.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(running())


def test_it_says_whether_it_was_set() -> None:
    async def running() -> tuple[bool, bool]:
        event = asyncio.Event()
        before = await is_set_within(event, seconds=0.01)
        event.set()
        return before, await is_set_within(event, seconds=60)

    assert asyncio.run(running()) == (False, True)
