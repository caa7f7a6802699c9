"""The event recorder: so many events at once, so many a second after that, for each object and for all together."""

from __future__ import annotations

import asyncio
from typing import Any

from fake_api_server import FakeApiServer

from edgefolio_operator.kube.client import Api
from edgefolio_operator.kube.event_recorder import Event, EventRecorder, TokenBucket

EVENTS = "/api/v1/namespaces/models/events"


def test_a_bucket_is_emptied_and_fills_again() -> None:
    bucket = TokenBucket(burst=3, per_second=0.5, now=100)
    assert bucket.is_full(100)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert not bucket.is_full(101)
    assert not bucket.take(101)
    assert bucket.take(102)
    assert not bucket.take(102)
    assert bucket.is_full(108)
    # And it never holds more than it may.
    assert [bucket.take(10_000) for _ in range(4)] == [True, True, True, False]


def portfolio(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "models", "uid": name}
    return {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": metadata}


def test_a_noisy_object_leaves_room_for_the_others() -> None:
    now = [1000.0]

    async def work(server: FakeApiServer) -> None:
        async with Api(server.access) as api:
            recorder = EventRecorder(api, clock=lambda: now[0])

            async def written(name: str, count: int) -> int:
                before = server.count("POST", EVENTS)
                for _ in range(count):
                    assert await recorder.record(portfolio(name), Event(reason="Told", message="something"))
                return server.count("POST", EVENTS) - before

            assert await written("noisy", 30) == 20
            assert await written("quiet", 2) == 2
            now[0] += 10
            assert await written("noisy", 30) == 2
            # Two minutes later its bucket is as good as a new one; that of the quiet object was dropped meanwhile.
            now[0] += 120
            assert await written("noisy", 30) == 20
            assert await written("quiet", 30) == 20
            # All together have 200 at once, of which 40 are gone.
            assert sum([await written(f"other-{number}", 20) for number in range(12)]) == 160

    with FakeApiServer(EVENTS) as server:
        asyncio.run(work(server))


def test_a_refused_event_is_logged_and_a_server_that_is_away_is_told() -> None:
    async def work(server: FakeApiServer) -> None:
        async with Api(server.access) as api:
            recorder = EventRecorder(api)
            server.tokens = set()
            assert await recorder.record(portfolio("a"), Event(reason="Told", message="something"))
            server.close()
            assert not await recorder.record(portfolio("a"), Event(reason="Told", message="something"))

    with FakeApiServer(EVENTS) as server:
        asyncio.run(work(server))
