"""The agent's watch of its endpoint against an API server that misbehaves: orders arrive, nothing is a hot loop."""

from __future__ import annotations

import functools
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from endpoint_orders import ENDPOINTS, endpoint_spec
from fake_api_server import Account, FakeApiServer, Watches, make_authorities

from edgefolio.kubernetes.access import Access
from edgefolio.kubernetes.sync_client import SyncClient
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.cluster.endpoint_client import EndpointClient
from edgefolio_edge.cluster.endpoint_watcher import EndpointWatcher
from edgefolio_edge.cluster.orders import Orders

spec = functools.partial(endpoint_spec, autonomy_after_seconds=6)


class Watched:
    """A watcher that runs; ``log`` is what it reports."""

    def __init__(self, server: FakeApiServer, access: Access, folder: Path) -> None:
        self.server = server
        self.log = io.StringIO()
        reporter = Reporter(as_json=True, stream=self.log)
        self.orders = Orders(folder)
        client = EndpointClient(SyncClient(access, timeout=2.0), namespace="models", name="digits-1")
        self.client = client
        self.watcher = EndpointWatcher(client, self.orders, reporter)

    def order(self, variant: str, *, told: bool = True) -> None:
        self.server.put(ENDPOINTS, "digits-1", spec=spec(variant), told=told)

    def obeys(self, variant: str) -> None:
        await_that(lambda: self.orders.order is not None and self.orders.order.spec.target_variant == variant)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]


def await_that(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def watched(server: FakeApiServer, access: Access, folder: Path) -> Iterator[Watched]:
    found = Watched(server, access, folder)
    found.order("dense")
    found.watcher.start()
    try:
        found.obeys("dense")
        await_that(lambda: server.count("watch") > 0)
        yield found
    finally:
        found.watcher.stop()


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer(ENDPOINTS) as running:
        yield running


@pytest.mark.parametrize("watches", ["gone", "gone event", "ends", "forbidden", "broken"])
def test_no_hot_loop_and_no_end(server: FakeApiServer, tmp_path: Path, watches: Watches) -> None:
    with watched(server, server.access, tmp_path) as found:
        server.watches = watches
        before = len(server.requests)
        server.cut()
        time.sleep(4.5)
        asked = [request.at for request in server.requests[before:] if request.verb == "watch"]
        pauses = [after - before for before, after in itertools.pairwise(asked)]
        assert 2 <= len(asked) <= 4, pauses
        assert all(pause >= 1 for pause in pauses[1:]), pauses
        server.watches = "well"
        found.order("small")
        found.obeys("small")
        assert found.events().count("unheard") <= 2


def test_short_watches_that_end_in_time_are_repeated_at_once(server: FakeApiServer, tmp_path: Path) -> None:
    """With ``autonomyAfterSeconds: 6`` the agent asks for watches of two seconds; that is no fault to slow down for."""
    with watched(server, server.access, tmp_path) as found:
        before = server.count("watch")
        time.sleep(7)
        assert 3 <= server.count("watch") - before <= 4
        found.order("small")
        found.obeys("small")
        assert server.count("get") == 1


def test_a_rotated_authority_and_token_cut_nobody_off(tmp_path: Path) -> None:
    authorities = make_authorities(tmp_path / "authorities")
    with FakeApiServer(ENDPOINTS, certificate=(authorities / "old.crt", authorities / "old.key")) as server:
        (tmp_path / "account").mkdir()
        account = Account(tmp_path / "account", server)
        account.write(authority=authorities / "old-ca.crt", token="first")
        server.tokens = {"first"}
        with watched(server, account.access, tmp_path) as found:
            server.rotate((authorities / "new.crt", authorities / "new.key"))
            server.tokens = {"second"}
            found.order("small", told=False)
            await_that(lambda: "unheard" in found.events())
            account.write(authority=authorities / "new-ca.crt", token="second")
            found.obeys("small")
            found.client.report({"phase": "Serving"})
            assert server.count("PATCH") == 1
