"""The warm standby on a real Triton: loaded in calm, verified, gone to in milliseconds, found when it has died."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from triton_agent import QUICK_SWITCHING, Command, eventually, write_portfolio
from triton_load import Clients, failed, wrong
from triton_portfolios import MODEL, images, publish, revealing_model
from triton_site import Site, open_site

from edgefolio.manifest import Manifest
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.launcher.server_record import recorded_server
from edgefolio_edge.triton.processes import stub_of_version
from edgefolio_edge.triton.switcher import Switcher

TAGS = {f"variant-{rank}": rank for rank in (1, 2, 3)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    repository = tmp_path / "portfolios"
    manifest = publish(repository, [revealing_model(tag, width=4 * tag) for tag in TAGS.values()])
    yield from open_site(tmp_path, manifest, repository)


def answered_by(site: Site) -> int:
    return site.control.infer(MODEL, {"image": images()}).version


def test_a_standby_is_verified_and_takes_no_request(site: Site) -> None:
    site.serve(3)
    outcome = site.switcher.load_standby(site.placement(1), active=site.placement(3))
    assert outcome.succeeded, outcome
    assert site.control.ready_versions(MODEL) == (101, 103)
    assert answered_by(site) == 103
    with pytest.raises(ValueError, match="higher"):
        site.switcher.load_standby(site.placement(3), active=site.placement(1))
    assert site.switcher.release_standby(site.placement(3))
    assert site.control.ready_versions(MODEL) == (103,)


def test_going_down_to_the_standby_loads_nothing(site: Site) -> None:
    site.serve(3)
    assert site.switcher.load_standby(site.placement(1), active=site.placement(3)).succeeded
    before = {stub.pid for stub in site.server.stubs()}
    outcome = site.switcher.switch(site.placement(1), previous=site.placement(3), is_resident=True)
    assert outcome.succeeded, outcome
    assert answered_by(site) == 101
    assert {stub.pid for stub in site.server.stubs()} <= before
    up = site.switcher.switch(site.placement(3), previous=site.placement(1), standby=[site.placement(1)])
    assert up.succeeded
    assert site.control.ready_versions(MODEL) == (101, 103), "what served stays as the standby"


def test_a_dead_standby_is_found_before_anything_is_left_for_it(site: Site) -> None:
    site.serve(3)
    assert site.switcher.load_standby(site.placement(1), active=site.placement(3)).succeeded
    stub = stub_of_version(site.server.identity, 101)
    assert stub is not None
    os.kill(stub.pid, signal.SIGKILL)
    outcome = site.switcher.switch(site.placement(1), previous=site.placement(3), is_resident=True)
    assert not outcome.succeeded
    assert outcome.restored
    assert answered_by(site) == 103


def test_a_damaged_standby_leaves_the_active_variant_alone(site: Site) -> None:
    site.serve(3)
    path = site.store.path_of(site.manifest, site.placement(1).variant)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-7])
    outcome = site.switcher.load_standby(site.placement(1), active=site.placement(3))
    assert not outcome.succeeded
    assert outcome.damaged
    assert site.control.ready_versions(MODEL) == (103,)
    assert answered_by(site) == 103


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1])
def test_a_standby_that_is_killed_while_it_loads_takes_no_request_with_it(site: Site, seconds: float) -> None:
    site.serve(3)
    ended = threading.Event()

    def kill_it() -> None:
        while not ended.is_set():
            stub = stub_of_version(site.server.identity, 101)
            if stub is not None:
                time.sleep(seconds)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stub.pid, signal.SIGKILL)
                return
            time.sleep(0.001)

    endpoint = site.server.endpoint()
    switcher = Switcher(site.control, site.store, end_load=endpoint.end_backend_of, is_loading=endpoint.is_loading)
    killer = threading.Thread(target=kill_it)
    with Clients(endpoint.grpc, endpoint.grpc, model=MODEL, grpc=1, http=0, think=0.01) as clients:
        clients.wait_for(5)
        killer.start()
        switcher.load_standby(site.placement(1), active=site.placement(3))
        clients.wait_for(len(clients.requests()) + 10)
        ended.set()
        killer.join()
    assert failed(clients.requests()) == []
    assert wrong(clients.requests(), site.manifest, TAGS) == []
    assert answered_by(site) == 103


class Place:
    """One agent's repository, file and state; the profile promises far more time for the second variant."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "portfolios"
        self.file = directory / "portfolio.json"
        self.state = directory / "state"
        models = [revealing_model(1, width=4), revealing_model(2, width=192, layers=4)]
        self.manifest: Manifest = publish(self.repository, models, milliseconds=[0.05, 0.8])
        self.ask(milliseconds=2000)

    def ask(self, *, milliseconds: int, **objectives: object) -> None:
        write_portfolio(
            self.file,
            repository=self.repository,
            model=MODEL,
            objectives={"latencyP95Milliseconds": milliseconds, **objectives},
            switching={**QUICK_SWITCHING, "upAfterSeconds": 2},
        )

    def run(self) -> Command:
        ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
        return Command("run", "-f", str(self.file), "--json", "--state-dir", str(self.state), *ports)

    def server(self) -> TritonServer:
        found = recorded_server(self.state)
        assert found is not None
        return found

    def resident(self) -> list[int]:
        found: list[int] = json.loads((self.state / "status.json").read_text())["residentVersions"]
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    left = recorded_server(place.state)
    if left is not None:
        left.stop(seconds=1)


def test_the_agent_keeps_a_standby_and_goes_down_to_it_under_load(place: Place) -> None:
    with place.run() as agent:
        serving = agent.wait_for("serving")
        assert serving["variant"] == "variant-2"
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.1) as clients:
            standby = agent.wait_for("standby")
            eventually(lambda: place.resident() == [standby["version"], 102])
            # Far below what this machine can do with variant-2, so that it is violated at once.
            place.ask(milliseconds=2)
            down = agent.wait_for("switch", variant=standby["variant"])
            assert down["reason"] in {"LatencyViolated", "Saturated"}
            assert any("is resident" in line["message"] for line in agent.events("decision", action="Switch"))
            place.ask(milliseconds=2000)
            agent.wait_for("switch", variant="variant-2", reason="MoreAccurateFits")
            clients.wait_for(len(clients.requests()) + 20)
        assert failed(clients.requests()) == []
        assert wrong(clients.requests(), place.manifest, TAGS) == []
        assert agent.stop() == 0


def test_the_agent_finds_a_standby_that_died_and_loads_it_again(place: Place) -> None:
    with place.run() as agent:
        agent.wait_for("serving")
        standby = agent.wait_for("standby")
        stub = stub_of_version(place.server().identity, standby["version"])
        assert stub is not None
        os.kill(stub.pid, signal.SIGKILL)
        agent.wait_for("standby-lost", version=standby["version"])
        seen = len(agent.lines)
        deadline = time.monotonic() + 60
        while not any(line.get("event") == "standby" for line in agent.lines[seen - 1 :]):
            assert time.monotonic() < deadline, agent.lines[-5:]
            time.sleep(0.1)
        assert not any(line.get("event") in ("dead", "died") for line in agent.lines), "the active one was not touched"


def test_a_tighter_memory_objective_unloads_the_standby_and_nothing_else(place: Place) -> None:
    with place.run() as agent:
        agent.wait_for("serving")
        standby = agent.wait_for("standby")
        eventually(lambda: place.resident() == [standby["version"], 102])
        together = [profile.memory_peak_bytes for variant in place.manifest.variants for profile in variant.profiles]
        place.ask(milliseconds=2000, maxMemory=str(max(together)))
        eventually(lambda: place.resident() == [102])
        assert not any(line.get("event") == "switch" and line.get("previous") for line in agent.lines)
