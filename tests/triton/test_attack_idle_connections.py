"""Clients that connect and say nothing: others are answered, the agent keeps control, and no healthy server ends."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from triton_agent import Command, write_portfolio
from triton_load import Clients, failed
from triton_portfolios import MODEL, publish, revealing_model

from edgefolio_edge.triton.launcher.server_record import recorded_server

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
CONNECTIONS = 1500


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 4 * CONNECTIONS:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * CONNECTIONS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def _idle(endpoint: str) -> Iterator[None]:
    host, _, port = endpoint.rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                connection.connect((host, int(port)))
        yield


@pytest.mark.parametrize("hard_limit", [1024, 4 * CONNECTIONS])
def test_idle_connections_take_nothing_from_others(tmp_path: Path, hard_limit: int) -> None:
    repository, file, state = tmp_path / "portfolios", tmp_path / "portfolio.json", tmp_path / "state"
    publish(repository, [revealing_model(1)])
    write_portfolio(file, repository=repository, model=MODEL)
    options = ("run", "-f", str(file), "--json", "--state-dir", str(state), *ANY_PORTS)
    with Command(*options, prefix=["prlimit", f"--nofile=1024:{hard_limit}"]) as agent:
        serving = agent.wait_for("serving")
        server = recorded_server(state)
        revision = 1
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.02) as clients:
            clients.wait_for(20)
            for name in ("grpc", "http", "metrics"):
                revision += 1
                with _idle(serving[name]):
                    publish(repository, [revealing_model(revision)])
                    if hard_limit > CONNECTIONS:
                        agent.wait_for("switch", version=100 * revision + 1)
                    else:
                        # Without a free file nothing can be loaded: what serves serves on, and nobody is blamed.
                        clients.wait_for(len(clients.requests()) + 200)
                agent.wait_for("switch", version=100 * revision + 1)
        assert failed(clients.requests()) == []
        assert not {"died", "dead", "silent", "failed", "refused"} & {line["event"] for line in agent.lines}
        assert recorded_server(state) == server
        assert agent.stop() == 0
