"""Connections to the agent's metrics that say nothing: they hold a few threads and files, not one each."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request

from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_edge.agent.records.metrics_server import MOST_CONNECTIONS


def test_idle_connections_hold_a_bounded_number_of_threads() -> None:
    metrics = AgentMetrics(model="digits")
    port = metrics.serve(0)
    before = threading.active_count()
    held = []
    try:
        for _ in range(10 * MOST_CONNECTIONS):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
                held.append(connection)
        assert len(held) > MOST_CONNECTIONS
        assert threading.active_count() - before <= MOST_CONNECTIONS
    finally:
        for connection in held:
            connection.close()
    # Once they are gone the next scrape is answered.
    for _ in range(100):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"edgefolio_revision_refused" in answer.read()
            break
    else:
        raise AssertionError("no scrape was answered")
    metrics.close()
