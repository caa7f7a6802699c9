"""A revision whose loads hang or fail: what served serves on, the revision is refused, and the next one is taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper
from triton_agent import Command, eventually, write_portfolio
from triton_load import Clients, failed
from triton_portfolios import MODEL, draft, publish, revealing_model
from triton_remains import remains_of

from edgefolio_edge.triton.launcher.server_record import recorded_server
from edgefolio_edge.triton.processes import stub_of_version

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def _endless(tag: int) -> bytes:
    """A model that is opened for minutes: ONNX Runtime computes a product of constants first."""
    model = onnx.load_from_string(revealing_model(tag))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([4096, 4096], np.int64), "shape"))
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1e-4])
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["product0"], value=one))
    for number in range(400):
        graph.node.insert(number + 1, helper.make_node("MatMul", [f"product{number}"] * 2, [f"product{number + 1}"]))
    graph.node.insert(401, helper.make_node("ReduceMax", ["product400"], ["sum"], keepdims=0))
    graph.node[-1].output[0] = "alone"
    graph.node.append(helper.make_node("Add", ["alone", "sum"], ["logits"]))
    raw: bytes = model.SerializeToString()
    return raw


class Place:
    def __init__(self, folder: Path) -> None:
        self.repository, self.file, self.state = folder / "portfolios", folder / "portfolio.json", folder / "state"
        publish(self.repository, [revealing_model(1), revealing_model(2)])
        self.ask({})

    def ask(self, objectives: dict[str, object]) -> None:
        write_portfolio(self.file, repository=self.repository, model=MODEL, objectives=objectives)

    def run(self) -> Command:
        return Command("run", "-f", str(self.file), "--json", "--state-dir", str(self.state), *ANY_PORTS)

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.state / "status.json").read_text())
        return found


def test_a_revision_of_which_no_variant_loads_is_refused_and_nobody_notices(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    place = Place(tmp_path)
    with place.run() as agent:
        serving = agent.wait_for("serving")
        server = recorded_server(place.state)
        assert server is not None
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=1, think=0.02) as clients:
            wrong = draft([revealing_model(5)]).variants[0].probe
            second = [revealing_model(3), _endless(4)]
            publish(place.repository, second, probes={1: wrong, 2: wrong})
            # On a busy machine a load that is slow is waited for.
            refused = agent.wait_for("refused", revision=2, patience=240)
            assert refused["servedRevision"] == 1
            assert "none of its variants can be served" in refused["message"]
            failures = agent.events("failed", variant="variant-2")
            assert "did not end within 15 s" in failures[0]["message"]
            # The hung load was ended alone: the server runs on.
            assert recorded_server(place.state) == server
            eventually(lambda: place.status()["revision"] == 1)
            publish(place.repository, [revealing_model(6), revealing_model(7)])
            agent.wait_for("switch", version=302)
            clients.wait_for(len(clients.requests()) + 20)
        record_property("requests", len(clients.requests()))
        record_property("failed", len(failed(clients.requests())))
        assert failed(clients.requests()) == []
        assert {request.version for request in clients.requests()} == {102, 302}
        assert agent.stop() == 0
    assert remains_of(server) == ()


def test_after_a_restart_what_served_comes_back_first(tmp_path: Path) -> None:
    """The server ends while a new revision is loaded."""
    place = Place(tmp_path)
    with place.run() as agent:
        serving = agent.wait_for("serving")
        before = recorded_server(place.state)
        assert before is not None
        said = len(agent.lines)
        publish(place.repository, [revealing_model(6), revealing_model(7)])
        eventually(lambda: stub_of_version(before.identity, 202) is not None)
        loading = stub_of_version(before.identity, 202)
        assert loading is not None
        psutil.Process(loading.pid).suspend()
        with Clients(serving["grpc"], serving["http"], model=MODEL, grpc=1, http=0, think=0.02) as clients:
            before.identity.kill()
            agent.wait_for("interrupted", after=said)
            again = agent.wait_for("serving", after=said)
            assert (again["variant"], again["version"]) == ("variant-2", 102)
            agent.wait_for("switch", after=said, version=202)
            eventually(lambda: [request.version for request in clients.requests()[-20:]] == [202] * 20)
        versions = [request.version for request in clients.requests() if request.version is not None]
        # A client that connects again only later may see the new revision alone.
        assert versions == sorted(versions)
        assert set(versions) <= {102, 202}
        assert agent.stop() == 0
    assert remains_of(before) == ()


def test_a_broken_revision_that_a_new_start_finds_on_disk_makes_room_for_the_one_before(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.run() as agent:
        agent.wait_for("serving")
        wrong = draft([revealing_model(5)]).variants[0].probe
        publish(place.repository, [revealing_model(3), revealing_model(4)], probes={1: wrong, 2: wrong})
        agent.wait_for("refused", revision=2)
        assert agent.stop() == 0
    # As after a crash before the refusal.
    shutil.copy(
        place.repository / "revisions" / MODEL / "current.json", place.state / "revisions" / MODEL / "good.json"
    )
    with place.run() as agent:
        refused = agent.wait_for("refused", revision=2)
        assert refused["servedRevision"] == 1
        assert agent.wait_for("serving")["version"] == 102
        assert agent.stop() == 0
