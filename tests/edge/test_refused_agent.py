"""An agent that the API server refuses is cut off: it decides alone, and obeys again once it is let in."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint_orders import ENDPOINTS, endpoint_spec
from fake_api_server import FakeApiServer

from edgefolio.kubernetes.sync_client import SyncClient
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.cluster.endpoint_client import EndpointClient
from edgefolio_edge.cluster.endpoint_watcher import EndpointWatcher
from edgefolio_edge.cluster.orders import Orders

spec = functools.partial(endpoint_spec, autonomy_after_seconds=3)


class Refusing(FakeApiServer):
    """Answers everything with this status, or with a text that is no object."""

    status: int | None = None
    nonsense: Any = None

    def __init__(self, *collections: str) -> None:
        super().__init__(*collections)
        self.requests_answered: list[str] = []

    def answer(self, handler: Any) -> None:
        self.requests_answered.append(handler.path)
        if self.nonsense is not None:
            handler.send(self.nonsense)
        elif self.status is not None:
            handler.refuse(self.status, "Refused")
        else:
            super().answer(handler)


@pytest.fixture
def server() -> Iterator[Refusing]:
    with Refusing(ENDPOINTS) as running:
        yield running


@contextlib.contextmanager
def _agent(server: Refusing, folder: Path) -> Iterator[tuple[Orders, io.StringIO]]:
    log = io.StringIO()
    orders = Orders(folder)
    client = EndpointClient(SyncClient(server.access, timeout=2.0), namespace="models", name="digits-1")
    watcher = EndpointWatcher(client, orders, Reporter(as_json=True, stream=log))
    server.put(ENDPOINTS, "digits-1", spec=spec("dense"))
    watcher.start()
    try:
        _await(orders, lambda: orders.order is not None)
        yield orders, log
    finally:
        watcher.stop()


def _await(orders: Orders, happens: Any) -> None:
    end = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < end, orders.order
        time.sleep(0.02)


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_refused_agent_decides_alone_and_obeys_again(server: Refusing, tmp_path: Path, status: int) -> None:
    with _agent(server, tmp_path) as (orders, _log):
        assert not orders.is_autonomous
        assert orders.objectives.pinned_variant == "dense"
        before = len(server.requests_answered)
        server.status = status
        server.cut()
        _await(orders, lambda: orders.is_autonomous)
        assert orders.objectives.pinned_variant is None
        assert len(server.requests_answered) - before <= 6
        server.status = None
        server.put(ENDPOINTS, "digits-1", spec=spec("small"), told=False)
        _await(orders, lambda: not orders.is_autonomous)
        _await(orders, lambda: orders.objectives.pinned_variant == "small")


def test_answers_that_are_none_end_nothing(server: Refusing, tmp_path: Path) -> None:
    with _agent(server, tmp_path) as (orders, log):
        for nonsense in ([], {"spec": {}, "metadata": {}}, {"metadata": []}):
            before = len(server.requests_answered)
            server.nonsense = nonsense
            server.cut()
            _await(orders, lambda before=before: len(server.requests_answered) > before)  # type: ignore[misc]
        assert '"unheard"' in log.getvalue()
        server.nonsense = None
        server.put(ENDPOINTS, "digits-1", spec=spec("small"), told=False)
        _await(orders, lambda: orders.order is not None and orders.order.spec.target_variant == "small")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "", "null", '{"targetVariant": 1}', "x" * (5 << 20)]
)
def test_a_damaged_order_on_disk_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "orders.json").write_text(text)
    assert Orders(tmp_path).order is None


def test_what_a_killed_agent_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".orders.json.0123456789abcdef.partial").write_text(json.dumps(spec("dense")))
    assert Orders(tmp_path).order is None
    assert list(tmp_path.iterdir()) == []
