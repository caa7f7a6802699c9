"""An operator that is told to end does, whatever happens in the same instant."""

from __future__ import annotations

import asyncio

import pytest

from edgefolio_operator.app import log_failure
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


def test_a_controller_that_ends_by_itself_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> None:
        raise KeyError("an unforeseen object")

    async def running() -> None:
        tasks = [asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(60))]
        for task in tasks:
            task.add_done_callback(log_failure)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(running())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "an unforeseen object" in str(record.exc_info[1])


def test_it_says_whether_it_was_set() -> None:
    async def running() -> tuple[bool, bool]:
        event = asyncio.Event()
        before = await is_set_within(event, seconds=0.01)
        event.set()
        return before, await is_set_within(event, seconds=60)

    assert asyncio.run(running()) == (False, True)
