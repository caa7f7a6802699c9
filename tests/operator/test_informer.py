"""Informers against an API server that misbehaves: nothing is missed, nothing is given up, nothing is a hot loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from fake_api_server import Account, FakeApiServer, Watches, make_authorities

from edgefolio.kubernetes.access import Access
from edgefolio_operator.kube.cache import ObjectCache
from edgefolio_operator.kube.client import Api
from edgefolio_operator.kube.informer import Informer

THINGS = "/api/v1/things"


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer(THINGS) as running:
        yield running


@contextlib.asynccontextmanager
async def informer(
    server: FakeApiServer, access: Access | None = None, *, silence_seconds: float = 90.0
) -> AsyncIterator[Informer]:
    """An informer that has listed and watches."""
    async with Api(access or server.access, silence_seconds=silence_seconds) as api:
        made = Informer(api, ObjectCache(), api_version="v1", plural="things")
        task = asyncio.create_task(made.run())
        try:
            async with asyncio.timeout(10):
                while not server.count("watch"):
                    await asyncio.sleep(0.01)
            assert made.synced.is_set()
            yield made
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def becomes(informer: Informer, *names: str, seconds: float = 15.0) -> float:
    """Wait until the cache holds exactly ``names``; the seconds that took."""
    began = time.monotonic()
    while [thing["metadata"]["name"] for thing in informer.cache.select()] != sorted(names):
        assert time.monotonic() < began + seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def test_changes_arrive(server: FakeApiServer) -> None:
    async def work() -> None:
        server.put(THINGS, "a")
        async with informer(server) as made:
            await becomes(made, "a")
            server.put(THINGS, "b")
            server.delete(THINGS, "a")
            await becomes(made, "b")
        assert server.count("list") == 1
        assert server.count("watch") == 1

    asyncio.run(work())


@pytest.mark.parametrize("watches", ["gone", "gone event"])
def test_an_expired_version_is_listed_anew_and_unseen_deletions_count(server: FakeApiServer, watches: Watches) -> None:
    async def work() -> None:
        server.put(THINGS, "a")
        server.put(THINGS, "b")
        async with informer(server) as made:
            await becomes(made, "a", "b")
            server.watches = watches
            server.delete(THINGS, "b", told=False)
            server.put(THINGS, "c", told=False)
            server.cut()
            await becomes(made, "a", "c")
            server.watches = "well"
            server.put(THINGS, "d")
            await becomes(made, "a", "c", "d")

    asyncio.run(work())


def test_a_silent_watch_is_left_and_what_it_withheld_is_listed(server: FakeApiServer) -> None:
    async def work() -> None:
        async with informer(server, silence_seconds=0.5) as made:
            server.watches = "silent"
            server.put(THINGS, "a", told=False)
            server.put(THINGS, "b")
            assert await becomes(made, "a", "b") >= 0.4
            server.watches = "well"
            server.put(THINGS, "c")
            await becomes(made, "a", "b", "c")

    asyncio.run(work())


@pytest.mark.parametrize("watches", ["gone", "gone event", "ends", "forbidden", "broken"])
def test_no_hot_loop_and_no_end(server: FakeApiServer, watches: Watches) -> None:
    """The first repetition may follow at once; then the pauses grow from a second on, and it goes on when it can."""

    async def work() -> None:
        async with informer(server) as made:
            server.watches = watches
            before = len(server.requests)
            server.cut()
            asked: list[float] = []
            async with asyncio.timeout(60):
                while len(asked) < 3:
                    await asyncio.sleep(0.05)
                    asked = [request.at for request in server.requests[before:] if request.verb == "watch"]
            pauses = [after - before for before, after in itertools.pairwise(asked)]
            assert all(pause >= 1 for pause in pauses[1:]), pauses
            assert sorted(pauses) == pauses
            server.watches = "well"
            server.put(THINGS, "a")
            await becomes(made, "a")

    asyncio.run(work())


def test_a_server_that_is_away_is_waited_for(server: FakeApiServer) -> None:
    async def work(refused: Callable[[set[str] | None], None]) -> None:
        async with informer(server) as made:
            refused(set())
            server.cut()
            server.put(THINGS, "a", told=False)
            await asyncio.sleep(1.5)
            assert len(made.cache) == 0
            refused(None)
            await becomes(made, "a")

    asyncio.run(work(lambda tokens: setattr(server, "tokens", tokens)))


def test_a_restored_etcd_is_believed(server: FakeApiServer) -> None:
    """After a restore versions are lower than what is held: the cache follows the list."""

    async def work() -> None:
        server.put(THINGS, "a")
        server.put(THINGS, "b")
        async with informer(server) as made:
            await becomes(made, "a", "b")
            server.restore(50)
            server.put(THINGS, "a", told=False)
            server.delete(THINGS, "b", told=False)
            server.watches = "gone"
            server.cut()
            await becomes(made, "a")
            held = made.cache.get("a", "models")
            assert held is not None
            assert held["metadata"]["resourceVersion"] == "51"

    asyncio.run(work())


def test_many_watches_leave_connections_for_requests(server: FakeApiServer) -> None:
    """As of an operator of many namespaces: each of its watches holds a connection."""

    async def work() -> None:
        server.put(THINGS, "a")
        async with Api(server.access) as api, asyncio.TaskGroup() as tasks:
            informers = [Informer(api, ObjectCache(), api_version="v1", plural="things") for _ in range(60)]
            running = [tasks.create_task(made.run()) for made in informers]
            async with asyncio.timeout(10):
                while server.count("watch") < len(informers):
                    await asyncio.sleep(0.05)
                assert (await api.get(f"{THINGS}/a"))["metadata"]["name"] == "a"
            for task in running:
                task.cancel()

    asyncio.run(work())


def test_a_rotated_authority_and_token_cut_nobody_off(tmp_path: Path) -> None:
    authorities = make_authorities(tmp_path / "authorities")

    async def work(server: FakeApiServer) -> None:
        account = Account(tmp_path, server)
        account.write(authority=authorities / "old-ca.crt", token="first")
        server.tokens = {"first"}
        async with informer(server, account.access) as made:
            server.rotate((authorities / "new.crt", authorities / "new.key"))
            server.tokens = {"second"}
            server.put(THINGS, "a", told=False)
            await asyncio.sleep(0.5)
            account.write(authority=authorities / "new-ca.crt", token="second")
            await becomes(made, "a")
            server.put(THINGS, "b")
            await becomes(made, "a", "b")

    certificate = authorities / "old.crt", authorities / "old.key"
    with FakeApiServer(THINGS, certificate=certificate) as server, warnings.catch_warnings():
        # The socket of a handshake that failed is left to the garbage collector (Python 3.11, aiohttp 3.14).
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(work(server))
        gc.collect()
