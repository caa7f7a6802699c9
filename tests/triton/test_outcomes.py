"""What a cycle came to reaches the endpoint's status and the hand-over, whatever the log calls it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from triton_agent import QUICK_SWITCHING, eventually
from triton_portfolios import MODEL, draft, publish, revealing_model

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.repository import Repository
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio_edge.agent.loop import Agent
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.records.event_log import Reporter
from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_edge.cluster.orders import HANDOVER_SECONDS, Orders
from edgefolio_edge.cluster.report_thread import ReportThread
from edgefolio_edge.cluster.status_writer import StatusWriter
from edgefolio_edge.cluster.switch_history import SwitchHistory
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.triton.host import Host
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports
from edgefolio_edge.triton.launcher.server import TritonServer

AUTONOMY_SECONDS = 30


class PodAgent:
    """The agent's parts as in a pod, with a real Triton, an API server in the test, and its time in ``now``."""

    def __init__(self, folder: Path, server: TritonServer, *, models: Path) -> None:
        self.now = 0.0
        self.status: dict[str, Any] = {}
        self.repository = folder / "portfolios"
        # The most accurate variant answers otherwise than its probe says: no load of it succeeds.
        tags = [revealing_model(tag) for tag in (1, 2, 3)]
        wrong = draft([revealing_model(9)]).variants[0].probe
        self.manifest = publish(self.repository, tags, probes={3: wrong})
        self.state = state = folder / "state"
        state.mkdir()
        self.orders = Orders(state, clock=lambda: self.now)
        self.order(self.manifest, "variant-1")
        self.orders.heard()
        store = ModelStore(state, model=MODEL, model_repository=models)
        self.synchronizer = Synchronizer(
            lambda: Repository.open(str(self.repository)), store, ordered=lambda: self.orders.revision
        )
        writer = StatusWriter(self.orders, self._report, clock=lambda: 1e9 + self.now)
        self.reports = ReportThread(self.orders, writer, SwitchHistory(state, self.orders))
        self.agent = Agent(
            Host(server.endpoint()),
            store,
            self.synchronizer,
            self.orders,
            options=AgentOptions(state_directory=state),
            outputs=AgentOutputs(
                reporter=Reporter(as_json=True, stream=io.StringIO()),
                metrics=AgentMetrics(model=MODEL),
                after_cycle=self.reports.after_cycle,
            ),
        )

    def _report(self, status: dict[str, Any]) -> bool:
        self.status = status
        return True

    def order(self, manifest: Manifest, target: str | None, *, digest: str | None = None, generation: int = 1) -> None:
        document = {
            "portfolioRef": {"name": "digits"},
            "podName": "digits-a",
            "nodeName": "edge-1",
            "modelName": MODEL,
            "repositoryURI": str(self.repository),
            "targetVariant": target,
            "revision": {"number": manifest.revision, "manifestDigest": digest or sha256_of(manifest.to_bytes())},
            "switching": {**QUICK_SWITCHING, "autonomyAfterSeconds": AUTONOMY_SECONDS},
        }
        self.orders.take(EndpointSpecification.model_validate(document), generation=generation)

    def cycles_until(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Run cycles until the reported status is such."""

        def reported() -> bool:
            self.synchronizer.step()
            self.agent.cycle()
            self.now += 0.01
            time.sleep(0.1)
            return holds(self.status)

        eventually(reported)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    models = tmp_path_factory.mktemp("models")
    server = TritonServer.start(ServerSettings(model_repository=models, ports=Ports(http=0, grpc=0, metrics=0)))
    yield server
    server.stop()


@pytest.fixture
def pod(tmp_path: Path, server: TritonServer) -> Iterator[PodAgent]:
    control = server.control()
    control.unload(MODEL)
    eventually(lambda: control.ready_versions(MODEL) == ())
    control.close()
    pod = PodAgent(tmp_path, server, models=server.settings.model_repository)
    yield pod
    pod.reports.stop()
    pod.agent.server.close()


def _renamed(reporter: Reporter, event: str, message: str = "", **facts: Any) -> None:
    """A log in which no event has the name it had, and no fact either."""
    named(reporter, event[::-1], message[::-1], **{name[::-1]: fact for name, fact in facts.items()})


named = Reporter.event
LOGS = {"as it is": named, "renamed": _renamed, "silent": lambda *_arguments, **_facts: None}


@pytest.mark.parametrize("log", LOGS)
def test_no_outcome_hangs_on_the_log(pod: PodAgent, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reporter, "event", LOGS[log])
    pod.cycles_until(lambda status: status.get("activeVariant") == "variant-1")
    assert "lastFailure" not in pod.status
    assert not pod.orders.is_autonomous, "it obeyed"

    # Cut off it decides alone. What does not load is its last failure; the next best serves, and that it acted counts.
    pod.now += AUTONOMY_SECONDS + 1
    pod.cycles_until(lambda status: status["activeVariant"] == "variant-2")
    failure = pod.status["lastFailure"]
    assert (failure["reason"], failure["revision"], failure["variant"]) == ("LoadFailed", 1, "variant-3")
    assert "variant-3 is not served" in failure["message"]
    pod.orders.heard()
    assert pod.orders.is_autonomous, "the operator does not know yet what serves"
    pod.now += HANDOVER_SECONDS + 1
    pod.orders.heard()
    assert not pod.orders.is_autonomous

    # A revision that is not what was ordered.
    second = publish(pod.repository, [revealing_model(4)])
    pod.order(second, None, digest="0" * 64, generation=2)
    pod.cycles_until(lambda status: status["lastFailure"]["reason"] == "RevisionRefused")
    assert pod.status["lastFailure"]["revision"] == 2
    assert pod.status["lastFailure"]["message"].startswith("Revision 2 is refused, revision 1 serves on: ")


def test_a_status_file_that_cannot_be_written_does_not_silence_the_endpoint(pod: PodAgent) -> None:
    (pod.state / "status.tmp").mkdir()

    def reported() -> bool:
        pod.synchronizer.step()
        with pytest.raises(UserError, match="state-dir"):
            pod.agent.cycle()
        pod.now += 0.01
        time.sleep(0.1)
        return pod.status.get("activeVariant") == "variant-1"

    eventually(reported)
