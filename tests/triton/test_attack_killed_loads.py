"""The kernel kills a backend process that loads, as where memory runs out: the old variant serves, the new one comes.

Twenty kills are in ``python -m benchmarks.endurance``.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from triton_agent import QUICK_SWITCHING, Command, eventually, write_portfolio
from triton_load import Clients, failed, wrong
from triton_portfolios import MODEL, publish, revealing_model
from triton_remains import remains_of

from edgefolio.manifest import Manifest
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.launcher.server_record import recorded_server
from edgefolio_edge.triton.processes import stub_of_version

TAGS = {"variant-1": 1, "variant-2": 2}
#: Moments after the process is there, in seconds; the first one is before Triton has heard of it, which hangs.
MOMENTS = (0.0, *(random.Random(11).uniform(0.1, 0.6) for _ in range(3)))


class Place:
    """A repository with two variants, and the agent's files."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.file, self.state = folder / "portfolios", folder / "portfolio.json", folder / "state"
        self.manifest: Manifest = publish(self.repository, [revealing_model(tag, width=8) for tag in TAGS.values()])
        self.ask(2)

    def ask(self, rank: int) -> None:
        objectives = {"maxMemory": "1536Ki"} if rank == 1 else {}
        switching = {**QUICK_SWITCHING, "downAfterSeconds": 0, "upAfterSeconds": 0, "quarantineSeconds": 1}
        write_portfolio(self.file, repository=self.repository, model=MODEL, objectives=objectives, switching=switching)

    def run(self) -> Command:
        ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
        return Command("run", "-f", str(self.file), "--json", "--state-dir", str(self.state), *ports)

    def server(self) -> TritonServer:
        found = recorded_server(self.state)
        assert found is not None
        return found

    def quarantined(self) -> list[str]:
        return list(json.loads((self.state / "status.json").read_text())["quarantined"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    left = recorded_server(place.state)
    if left is not None:
        left.stop(seconds=1)


def test_a_killed_load_leaves_the_old_variant_and_is_tried_again(place: Place) -> None:
    with place.run() as agent:
        serving, servers = agent.wait_for("serving"), [place.server()]
        for number, moment in enumerate(MOMENTS):
            rank = 1 + number % 2
            target, said, server = f"variant-{rank}", len(agent.lines), place.server()
            with Clients(serving["grpc"], "", model=MODEL, grpc=1, http=0, think=0.02) as clients:
                place.ask(rank)
                eventually(lambda server=server, rank=rank: stub_of_version(server.identity, 100 + rank) is not None)
                loading = stub_of_version(server.identity, 100 + rank)
                assert loading is not None
                time.sleep(moment)
                loading.kill()
                agent.wait_for("switch", after=said, variant=target)
                eventually(lambda clients=clients, rank=rank: clients.requests()[-1].tag == rank)
            assert wrong(clients.requests(), place.manifest, TAGS) == []
            failures = agent.events("failed", after=said, variant=target)
            assert all(failure["restored"] is True for failure in failures)
            # A version that was ready when its process was killed has had requests.
            was_loading = failures and not any("canary" in failure["message"] for failure in failures)
            if place.server().identity == server.identity and was_loading:
                assert failed(clients.requests()) == []
            servers.append(place.server())
            # It was not its fault: nothing is held against it.
            eventually(lambda: place.quarantined() == [])
        assert agent.stop() == 0
    assert [remains for server in servers for remains in remains_of(server)] == []
