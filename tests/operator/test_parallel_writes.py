"""Many writes: some at a time, one that is refused holds up no other, a server that is gone ends them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgefolio_operator.kube.bulk_apply import apply_each
from edgefolio_operator.kube.client import ApiError


def documents(count: int) -> list[dict[str, Any]]:
    return [{"metadata": {"name": f"e{number}"}} for number in range(count)]


class Server:
    """Answers each write after a moment, with the error that the test has set for its name."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.begun: list[str] = []
        self.done: list[str] = []
        self.most_at_once = 0
        self._now = 0

    async def write(self, document: dict[str, Any]) -> None:
        name = document["metadata"]["name"]
        self.begun.append(name)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0.001)
        self._now -= 1
        if name in self.errors:
            raise self.errors[name]
        self.done.append(name)


def test_all_are_written_some_at_a_time_in_their_order() -> None:
    server = Server()
    assert asyncio.run(apply_each(documents(20), server.write, concurrency=4)) == {}
    assert sorted(server.done) == sorted(server.begun)
    assert server.begun == [f"e{number}" for number in range(20)]
    assert server.most_at_once == 4


def test_nothing_to_write() -> None:
    assert asyncio.run(apply_each([], Server().write)) == {}


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_one_that_is_refused_holds_up_no_other(status: int) -> None:
    error = ApiError(status, "Invalid", "a newer operator has written this endpoint")
    server = Server(e3=error)
    assert asyncio.run(apply_each(documents(20), server.write, concurrency=4)) == {"e3": error}
    assert len(server.done) == 19


@pytest.mark.parametrize(
    "error",
    [
        ApiError(401, "Unauthorized", ""),
        ApiError(429, "TooManyRequests", ""),
        ApiError(503, "ServiceUnavailable", ""),
        OSError("refused"),
        TimeoutError(),
        RuntimeError("the lease was lost"),
    ],
)
def test_what_concerns_all_ends_them(error: Exception) -> None:
    server = Server(e3=error)
    with pytest.raises(type(error)) as raised:
        asyncio.run(apply_each(documents(20), server.write, concurrency=4))
    assert raised.value is error
    # What was under way has ended; nothing more was begun.
    assert len(server.begun) <= 8
    assert sorted(server.done) == sorted(set(server.begun) - {"e3"})


def test_ending_the_operator_ends_the_writes() -> None:
    server = Server()

    async def ended() -> None:
        task = asyncio.create_task(apply_each(documents(1000), server.write))
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        begun = len(server.begun)
        await asyncio.sleep(0.01)
        assert len(server.begun) == begun < 1000

    asyncio.run(ended())
