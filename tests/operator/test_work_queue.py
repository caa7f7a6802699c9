"""A key is taken soon after a change, rests in proportion to planning, and does not keep people waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgefolio_operator.reconcilers.work_queue import GATHERING_SECONDS, WorkQueue

A, B = ("models", "a"), ("models", "b")
#: So long that a test which waited for it would be seen to hang.
LONG = 60.0


def with_queue(work: Callable[[WorkQueue], Awaitable[None]], *, requeue_seconds: float = LONG) -> None:
    async def running() -> None:
        await work(WorkQueue(requeue_seconds=requeue_seconds))

    asyncio.run(running())


async def taken(queue: WorkQueue) -> tuple[str, str] | None:
    """The key that is taken soon; ``None`` if there is none."""
    try:
        return await asyncio.wait_for(queue.take(), timeout=GATHERING_SECONDS + 0.5)
    except TimeoutError:
        return None


def test_changes_that_come_together_are_one() -> None:
    async def work(queue: WorkQueue) -> None:
        for _ in range(5):
            queue.add(A)
        assert await taken(queue) == A
        assert await taken(queue) is None

    with_queue(work)


def test_a_key_has_one_worker_and_is_taken_again_when_it_was_urgent_meanwhile() -> None:
    async def work(queue: WorkQueue) -> None:
        queue.add(A)
        assert await taken(queue) == A
        queue.add(A, urgent=True)
        queue.add(B)
        assert await taken(queue) == B
        assert await taken(queue) is None, "somebody works on it"
        queue.done(A)
        assert await taken(queue) == A

    with_queue(work)


def test_what_its_worker_wrote_is_no_reason_to_take_a_key_again() -> None:
    async def work(queue: WorkQueue) -> None:
        queue.add(A)
        assert await taken(queue) == A
        queue.add(A)
        queue.done(A)
        assert await taken(queue) is None

    with_queue(work)


def test_a_key_comes_back_after_a_while_unless_it_is_gone() -> None:
    async def work(queue: WorkQueue) -> None:
        queue.add(A)
        assert await taken(queue) == A
        queue.done(A)
        assert await taken(queue) == A
        queue.done(A, requeue=False)
        assert await taken(queue) is None

    with_queue(work, requeue_seconds=0.05)


def test_much_planning_is_rested_from_but_not_by_what_a_user_wrote() -> None:
    async def work(queue: WorkQueue) -> None:
        queue.planned(LONG)
        queue.add(A)
        queue.add(B)
        assert await taken(queue) is None
        queue.add(B, urgent=True)
        assert await taken(queue) == B

    with_queue(work)


def test_the_rest_is_no_longer_than_a_requeue() -> None:
    async def work(queue: WorkQueue) -> None:
        queue.planned(LONG)
        queue.add(A)
        assert await taken(queue) == A

    with_queue(work, requeue_seconds=0.2)


def test_a_little_planning_is_a_little_rest() -> None:
    async def work(queue: WorkQueue) -> None:
        queue.planned(0.001)
        queue.add(A)
        assert await taken(queue) == A

    with_queue(work)


def test_stuck_is_when_no_worker_is_free_for_a_key_that_is_due() -> None:
    now = 0.0

    async def running() -> None:
        nonlocal now
        queue = WorkQueue(requeue_seconds=2.0, clock=lambda: now)
        assert queue.stuck_seconds == 0
        queue.add(A)
        queue.add(B)
        now = 1.0
        assert {await queue.take(), await queue.take()} == {A, B}
        queue.done(B)
        now = 100.0
        # B was due at 3 s; nobody takes it.
        assert queue.stuck_seconds == 97
        assert await queue.take() == B
        queue.done(B)
        assert queue.stuck_seconds == 0
        assert queue.active_seconds == {A: 99}
        queue.done(A, requeue=False)
        assert await asyncio.wait_for(_advanced(queue), timeout=5) == B
        now = 300.0
        assert queue.stuck_seconds == 198, "all that there is hangs"

    async def _advanced(queue: WorkQueue) -> tuple[str, str]:
        nonlocal now
        now = 102.0
        return await queue.take()

    asyncio.run(running())
