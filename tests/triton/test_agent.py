"""``edgefolio run`` on a real Triton: follows what is, survives what happens, leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from triton_agent import Command, eventually, write_portfolio
from triton_load import Clients, failed, wrong
from triton_portfolios import MODEL, publish, revealing_model
from triton_remains import remains_of

from edgefolio.manifest import Manifest
from edgefolio_edge.triton.client import AccessKey, TritonControl
from edgefolio_edge.triton.launcher.server import TritonServer
from edgefolio_edge.triton.launcher.server_record import recorded_server
from edgefolio_edge.triton.processes import stub_of_version, stubs_of

TAGS = {f"variant-{rank}": rank for rank in (1, 2, 3, 4)}
ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


class Place:
    """Where one test's agent lives: its repository, its file, its state."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "portfolios"
        self.file = directory / "portfolio.json"
        self.state = directory / "state"
        self.trace = directory / "trace.jsonl"
        self.manifest: Manifest = publish(
            self.repository, [revealing_model(tag, width=4 * tag) for tag in TAGS.values()]
        )
        self.ask({})

    def ask(self, objectives: dict[str, object]) -> None:
        write_portfolio(self.file, repository=self.repository, model=MODEL, objectives=objectives)

    def run(self, *options: str) -> Command:
        return Command("run", "-f", str(self.file), "--json", "--state-dir", str(self.state), *ANY_PORTS, *options)

    def server(self) -> TritonServer:
        found = recorded_server(self.state)
        assert found is not None
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    # Only after a failure is there anything left.
    left = recorded_server(place.state)
    if left is not None:
        left.stop(seconds=1)


def test_objectives_are_followed_and_everything_is_removed_at_the_end(place: Place) -> None:
    with place.run("--record", str(place.trace)) as agent:
        serving = agent.wait_for("serving")
        assert serving["variant"] == "variant-4"
        server = place.server()
        assert server.endpoint().grpc == serving["grpc"]
        assert (place.state / "server.json").stat().st_mode & 0o077 == 0
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.005) as clients:
            place.ask({"maxMemory": "1536Ki"})
            switch = agent.wait_for("switch", variant="variant-1")
            assert switch["reason"] == "MemoryExceeded"
            place.ask({})
            agent.wait_for("switch", variant="variant-4", reason="MoreAccurateFits")
        requests = clients.requests()
        assert failed(requests) == []
        assert wrong(requests, place.manifest, TAGS) == []
        assert {request.tag for request in requests} >= {1, 4}
        # The cycle that switched ends a little after the switch was said.
        eventually(lambda: json.loads((place.state / "status.json").read_text())["activeVariant"] == "variant-4")
        with urllib.request.urlopen(f"http://{agent.wait_for('started')['agentMetrics']}/metrics") as answer:
            metrics = answer.read().decode()
        for name in (
            'edgefolio_decisions_total{action="Switch",model="revealing",reason="MemoryExceeded"} 1.0',
            'edgefolio_switches_total{model="revealing",outcome="success"}',
            'edgefolio_switch_duration_seconds_count{model="revealing"}',
            'edgefolio_endpoint_variant_info{model="revealing",variant="variant-4",version="104"} 1.0',
            'edgefolio_objective_violated{model="revealing"} 0.0',
        ):
            assert name in metrics
        assert agent.stop() == 0
    assert remains_of(server) == ()
    assert not (place.state / "server.json").exists()
    replayed = subprocess.run(
        [sys.executable, "-m", "edgefolio.commands.main", "replay", str(place.trace), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert replayed.returncode == 0, replayed.stderr
    assert "MemoryExceeded" in replayed.stdout


def test_measured_latency_above_the_objective_makes_it_take_a_faster_variant(place: Place) -> None:
    """The profile promises 0.4 ms; on this machine the most accurate variant takes far longer than the objective."""
    models = [revealing_model(1, width=4), revealing_model(2, width=192, layers=4)]
    manifest = publish(place.repository, models, milliseconds=[0.05, 0.4])
    place.ask({"latencyP95Milliseconds": 2})
    with place.run() as agent:
        serving = agent.wait_for("serving")
        assert serving["variant"] == "variant-2"
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.02) as clients:
            switch = agent.wait_for("switch", variant="variant-1")
            assert switch["reason"] in {"LatencyViolated", "Saturated"}
            clients.wait_for(len(clients.requests()) + 20)
        assert failed(clients.requests()) == []
        assert wrong(clients.requests(), manifest, {"variant-1": 1, "variant-2": 2}) == []
        assert clients.requests()[-1].tag == 1
        held = agent.wait_for("decision", action="Hold", active="variant-2", reason="ViolationTooShort")
        assert "ms" in held["message"]


def test_a_killed_agent_finds_its_triton_again_and_users_notice_nothing(place: Place) -> None:
    agent = place.run()
    serving = agent.wait_for("serving")
    server = place.server()
    with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.002) as clients:
        clients.wait_for(20)
        agent.kill()
        clients.wait_for(len(clients.requests()) + 20)
        with place.run() as second:
            again = second.wait_for("serving")
            assert again["adopted"] is True
            assert again["grpc"] == serving["grpc"]
            assert place.server().identity == server.identity
            # It is in control again, not merely looking on.
            place.ask({"maxMemory": "2560Ki"})
            second.wait_for("switch", variant="variant-2")
            clients.wait_for(len(clients.requests()) + 20)
            clients.__exit__()
            assert second.stop(signal.SIGTERM) == 0
    assert failed(clients.requests()) == []
    assert wrong(clients.requests(), place.manifest, TAGS) == []
    assert remains_of(server) == ()


def test_a_killed_triton_is_started_again(place: Place) -> None:
    with place.run() as agent:
        serving = agent.wait_for("serving")
        before = place.server()
        said = len(agent.lines)
        before.identity.kill()
        agent.wait_for("died", after=said)
        again = agent.wait_for("serving", after=said)
        assert again["grpc"] == serving["grpc"]
        after = place.server()
        assert after.identity != before.identity
        control = after.control()
        assert control.ready_versions(MODEL) == (104,)
        control.close()
        assert agent.stop() == 0
    assert remains_of(before) == ()
    assert remains_of(after) == ()


def test_a_backend_that_is_stopped_for_a_while_is_survived(place: Place) -> None:
    """Triton takes it for dead; when it goes on, Triton may abort. Either way requests are answered again."""
    with place.run() as agent:
        serving = agent.wait_for("serving")
        before, said = place.server(), len(agent.lines)
        stopped = [psutil.Process(stub.pid) for stub in stubs_of(before.identity)]
        for stub in stopped:
            stub.suspend()
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=0, think=0.05) as clients:
            agent.wait_for("switch", after=said)
            for stub in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    stub.resume()
            eventually(lambda: clients.latest_good_run() >= 20)
        after = place.server()
        assert agent.stop() == 0
    assert remains_of(before) == ()
    assert remains_of(after) == ()


def test_a_load_that_hangs_is_ended_or_the_server_with_it(place: Place) -> None:
    """The new variant's backend is stopped while it starts. Where it held a lock, only a restart helps."""
    with place.run() as agent:
        serving = agent.wait_for("serving")
        before, said = place.server(), len(agent.lines)
        place.ask({"maxMemory": "1536Ki"})
        eventually(lambda: stub_of_version(before.identity, 101) is not None)
        loading = stub_of_version(before.identity, 101)
        assert loading is not None
        psutil.Process(loading.pid).suspend()
        failure = agent.wait_for("failed", after=said, variant="variant-1")
        assert failure["restored"] is True
        eventually(lambda: json.loads((place.state / "status.json").read_text())["activeVariant"] is not None)
        assert place.server().grpc_endpoint == serving["grpc"]
        if agent.events("stuck", after=said):
            agent.wait_for("serving", after=said)
            assert place.server().identity != before.identity
        else:
            assert place.server().identity == before.identity
        assert not loading.is_alive()
        # The variant that hung is left alone for a while; of the others the one nearest to the objective serves.
        eventually(lambda: "variant-1" in json.loads((place.state / "status.json").read_text())["quarantined"])
        assert agent.stop() == 0
    assert remains_of(before) == ()


def test_a_killed_backend_is_found_and_repaired_without_a_restart(place: Place) -> None:
    with place.run() as agent:
        agent.wait_for("serving")
        server, said = place.server(), len(agent.lines)
        for stub in stubs_of(server.identity):
            stub.kill()
        agent.wait_for("dead", after=said)
        switched = agent.wait_for("switch", after=said)
        assert switched["reason"] == "ServerDead", agent.lines[said:]
        assert place.server().identity == server.identity
        control = server.control()
        assert control.ready_versions(MODEL) == (104,)
        control.close()


def test_a_corrupt_revision_is_refused_and_the_next_good_one_is_taken(place: Place) -> None:
    with place.run() as agent:
        serving = agent.wait_for("serving")
        agent.wait_for("revision", revision=1)
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=0, think=0.005) as clients:
            # All of it is published, then one variant's bytes change in place: a bucket that lies.
            victim = place.repository / "models" / MODEL / "202" / "model.onnx"
            second = [revealing_model(tag, width=4) for tag in (5, 6)]
            _publish_damaged(place.repository, second, victim)
            refused = agent.wait_for("refused", revision=2)
            assert "202/model.onnx" in refused["message"]
            assert refused["servedRevision"] == 1
            assert not (place.state / "models" / MODEL / "202").exists()
            place.ask({"maxMemory": "1536Ki"})  # still in control, with the old revision
            agent.wait_for("switch", variant="variant-1", version=101)
            place.ask({})
            manifest = publish(place.repository, [revealing_model(tag, width=4) for tag in (7, 8)])
            taken = agent.wait_for("switch", version=302)
            assert taken["reason"] == "UnknownActiveVariant"
        assert failed(clients.requests()) == []
        assert {request.tag for request in clients.requests()} <= {1, 2, 3, 4, 8}
        assert manifest.revision == 3
        assert agent.stop() == 0


def _publish_damaged(repository: Path, models: list[bytes], victim: Path) -> None:
    """Publish in a copy, damage it there, and bring the pointer over last, as an attacker or a bad disk would."""
    copy = repository.parent / "copy"
    shutil.copytree(repository, copy)
    publish(copy, models)
    damaged = copy / victim.relative_to(repository)
    raw = bytearray(damaged.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    damaged.chmod(0o644)
    damaged.write_bytes(raw)
    pointer = copy / "revisions" / MODEL / "current.json"
    held = pointer.read_bytes()
    pointer.unlink()
    shutil.copytree(copy, repository, dirs_exist_ok=True)
    temporary = repository / "revisions" / MODEL / ".current.partial"
    temporary.write_bytes(held)
    temporary.replace(repository / "revisions" / MODEL / "current.json")


def test_a_second_agent_on_the_same_endpoint_or_state_refuses(place: Place, tmp_path: Path) -> None:
    with place.run() as agent:
        serving = agent.wait_for("serving")
        same_state = place.run()
        assert same_state.wait() == 2
        assert f"process {agent.process.pid}" in same_state.errors
        assert "--state-dir" in same_state.errors
        port = serving["grpc"].rpartition(":")[2]
        options = ["run", "-f", str(place.file), "--state-dir", str(tmp_path / "other"), "--json"]
        same_port = Command(*options, "--http-port", "0", "--metrics-port", "0", "--grpc-port", port)
        assert same_port.wait() == 2
        assert f"another agent (process {agent.process.pid})" in same_port.errors
        attached = Command(
            *options, "--endpoint", f"grpc://{serving['grpc']}", "--model-directory", str(tmp_path / "m")
        )
        assert attached.wait() == 2
        assert f"another agent (process {agent.process.pid})" in attached.errors
        assert agent.process.poll() is None


def test_an_agent_attaches_to_a_triton_that_runs_anyway(place: Place, tmp_path: Path) -> None:
    with place.run() as owner:
        owner.wait_for("serving")
        server = place.server()
        owner.kill()
    key_file = tmp_path / "key"
    key_file.write_text(f"{server.key.name}={server.key.secret}\n")
    options = [
        "run", "-f", str(place.file), "--json", "--state-dir", str(tmp_path / "attached"),
        "--endpoint", f"grpc://{server.grpc_endpoint}", "--endpoint-metrics", server.metrics_endpoint,
        "--model-directory", str(server.settings.model_repository),
    ]  # fmt: skip
    try:
        keyless = Command(*options)
        assert keyless.wait() == 2
        assert "--endpoint-key-file" in keyless.errors
        place.ask({"maxMemory": "3584Ki"})
        with Command(*options, "--endpoint-key-file", str(key_file)) as agent:
            agent.wait_for("switch", variant="variant-3")
            assert agent.stop() == 0
        # It is not ours to stop.
        assert server.is_alive()
        control = TritonControl(server.grpc_endpoint, key=AccessKey(name=server.key.name, secret=server.key.secret))
        assert control.ready_versions(MODEL) == (103,)
        control.close()
        watched = Command(*options, "--endpoint-key-file", str(key_file), "--dry-run")
        place.ask({"maxMemory": "1536Ki"})
        watched.wait_for("decision", action="Switch", target="variant-1", dryRun=True)
        assert watched.events("switch") == []
        assert watched.stop() == 0
    finally:
        server.stop()
    assert remains_of(server) == ()


def test_a_dry_run_without_an_endpoint_says_the_first_decision_and_writes_nothing(place: Place) -> None:
    place.ask({"maxMemory": "2560Ki"})
    agent = place.run("--dry-run")
    assert agent.wait() == 0
    (decision,) = agent.events("decision")
    assert (decision["action"], decision["target"], decision["dryRun"]) == ("Switch", "variant-2", True)
    assert not place.state.exists()
    assert not [child for child in psutil.Process().children() if "triton" in child.name()]
