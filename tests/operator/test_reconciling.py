"""Cycles of one portfolio: from the first sight over the first revision to switches, and what is written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgefolio.decision.types import Action as DecisionAction
from edgefolio.decision.types import (
    Decision,
    MemoryState,
    Observation,
    ServerState,
    State,
    TrafficWindow,
)
from edgefolio.decision.types import Reason as DecisionReason
from edgefolio.endpoint_report import report_of_decision, report_of_observation
from edgefolio.job_report import FailureReport, PublishedReport
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio.specification.portfolio_status import VariantStatus
from edgefolio_operator.jobs import Images
from edgefolio_operator.reconciling import Plan, World, reconcile

NOW = 1_800_000_000.0
IMAGES = Images(pruner="example.com/pruner:1", agent="example.com/agent:1", triton="example.com/triton:1")


def variant(name: str, rank: int, milliseconds: float) -> VariantStatus:
    return VariantStatus(
        name=name,
        rank=rank,
        accuracy_percent=str(80 + rank),
        mean_milliseconds=str(milliseconds),
        p95_milliseconds=str(milliseconds * 1.2),
        load_milliseconds="100",
        memory_peak_bytes=2**24,
        memory_steady_bytes=2**23,
    )


def published(revision: int) -> PublishedReport:
    variants = (variant("small", 1, 2.0), variant("dense", 2, 10.0))
    return PublishedReport(revision=revision, manifest_digest=f"{revision:064x}", variants=variants)


class Site:
    """What an API server would hold: plans are written into it, and what pods and people do as well."""

    def __init__(self, *, nodes: int = 2, **spec: Any) -> None:
        self.now = NOW
        self.portfolio: dict[str, Any] = {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models", "uid": "u", "generation": 1, "annotations": {}},
            "spec": {
                "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
                "data": {"trainingURI": "builtin:digits"},
                "methods": {"sparseTraining": {}},
                "repository": {"uri": "s3://bucket/portfolios"},
                "serving": {"modelName": "digits"},
                "objectives": {"latencyP95Milliseconds": 20},
                "switching": {"downAfterSeconds": 2, "upAfterSeconds": 30, "settleSeconds": 0, "minDwellSeconds": 0},
                **spec,
            },
        }
        self.jobs: dict[str, dict[str, Any]] = {}
        self.job_pods: list[dict[str, Any]] = []
        names = [f"edge-{number}" for number in range(1, nodes + 1)]
        self.nodes = {name: {"metadata": {"name": name, "annotations": {}}, "status": _ready()} for name in names}
        self.pods = [
            {
                "metadata": {
                    "name": f"digits-{name}",
                    "uid": name,
                    "creationTimestamp": time_text(NOW - 60),
                    "annotations": {},
                },
                "spec": {"nodeName": name},
                "status": _ready(),
            }
            for name in names
        ]
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.daemon_set: dict[str, Any] | None = None
        self.states: dict[str, State] = {}
        self.plan: Plan | None = None

    def cycle(self, seconds: float = 1.0) -> Plan:
        """One cycle ``seconds`` later; what it plans is written."""
        self.now += seconds
        world = World(
            portfolio=copy.deepcopy(self.portfolio),
            jobs=list(self.jobs.values()),
            job_pods=self.job_pods,
            pods=self.pods,
            nodes=self.nodes,
            endpoints=list(self.endpoints.values()),
            daemon_set=self.daemon_set,
        )
        plan = reconcile(world, images=IMAGES, states=self.states, epoch=1, now=self.now)
        for document in plan.apply:
            name = document["metadata"]["name"]
            if document["kind"] == "Job":
                self.jobs[name] = {**document, "status": {"startTime": time_text(self.now)}}
            elif document["kind"] == "DaemonSet":
                self.daemon_set = document
            elif document["kind"] == "ModelEndpoint":
                self.endpoints[name] = {**self.endpoints.get(name, {}), **document}
        if plan.delete_daemon_set is not None:
            self.daemon_set = None
        for name in plan.delete_jobs:
            del self.jobs[name]
        self.portfolio["status"] = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.states = dict(plan.states or {})
        self.plan = plan
        return plan

    def end_job(self, report: PublishedReport | FailureReport) -> None:
        """The newest Job ends with this report."""
        name = list(self.jobs)[-1]
        kind = "Complete" if isinstance(report, PublishedReport) else "Failed"
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": time_text(self.now)}]
        self.jobs[name]["status"]["conditions"] = conditions
        state = {"terminated": {"message": report.to_message()}}
        statuses = {"containerStatuses": [{"name": "pruner", "state": state}]}
        self.job_pods.append({"metadata": {"labels": {"job-name": name}}, "status": statuses})

    def edit(self, **spec: Any) -> None:
        """The user changes the spec."""
        self.portfolio["spec"] = {**self.portfolio["spec"], **spec}
        self.portfolio["metadata"]["generation"] += 1

    def report(self, node: str, *, slowdown: float = 1.0, met: bool | None = True, obey: bool = True) -> None:
        """The agent on ``node`` does as it is told and reports steady traffic at ``slowdown`` of the profile."""
        entry = self.endpoints[f"digits-{node}"]
        old = EndpointStatus.model_validate(entry.get("status") or {})
        spec = entry["spec"]
        active = spec["targetVariant"] if obey else old.active_variant
        switched = old.active_variant is not None and active != old.active_variant
        at = self.now if switched else None
        compute = {"small": 2.0, "dense": 10.0}[active] * slowdown
        traffic = TrafficWindow(
            seconds=5,
            requests=20,
            failures=0,
            executions=20,
            mean_compute_milliseconds=compute,
            mean_queue_milliseconds=0.1,
            mean_total_milliseconds=compute + 0.5,
            in_flight=0.04,
            batch=1,
            age_seconds=0,
        )
        observation = Observation(
            active_variant=active,
            resident_variants=(active,),
            server=ServerState.SERVING,
            traffic=traffic,
            memory=MemoryState(limit_bytes=2**30, working_set_bytes=2**27, node_available_bytes=2**31, age_seconds=0),
        )
        decision = Decision(
            action=DecisionAction.HOLD,
            reason=DecisionReason.OBJECTIVES_MET,
            target=None,
            message="",
            objectives_met=met,
        )
        last = old.decision.last_switch_time if old.decision else None
        state = State(compute_factor=slowdown, last_switch_at=at or (time_seconds(last) if last else None))
        status = EndpointStatus(
            active_variant=active,
            active_revision=spec["revision"]["number"] if obey else old.active_revision,
            resident_variants=(active,),
            observation=report_of_observation(observation, now=self.now, valid_seconds=30),
            decision=report_of_decision(decision, state, decided_by_agent=False),
        )
        entry["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def condition(self, kind: str) -> tuple[str, str]:
        (found,) = (entry for entry in self.portfolio["status"]["conditions"] if entry["type"] == kind)
        return found["status"], found["reason"]

    def targets(self) -> dict[str, str | None]:
        return {entry["spec"]["nodeName"]: entry["spec"].get("targetVariant") for entry in self.endpoints.values()}


def _ready() -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": "True"}]}


def serving(**spec: Any) -> Site:
    """A site that serves its first revision."""
    site = Site(**spec)
    site.cycle()
    site.end_job(published(1))
    site.cycle()
    for node in site.nodes:
        site.report(node)
    site.cycle()
    return site


def test_from_nothing_to_serving() -> None:
    site = Site()
    first = site.cycle()
    workload = ["ServiceAccount", "RoleBinding", "Service", "DaemonSet"]
    making = ["ConfigMap", "Job"]
    assert [document["kind"] for document in first.apply] == [*workload, *making, "ModelEndpoint", "ModelEndpoint"]
    assert site.targets() == {"edge-1": None, "edge-2": None}
    assert site.condition("Ready") == ("False", "Making")
    assert site.condition("Reconciling") == ("True", "FirstMaking")
    site.end_job(published(1))
    second = site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}
    assert [event.reason for event in second.events] == ["Published", "RolloutCompleted"]
    assert site.condition("Ready") == ("False", "EndpointsUnavailable")
    for node in site.nodes:
        site.report(node)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("Reconciling") == ("False", "Settled")
    status = site.portfolio["status"]
    assert (status["currentRevision"], status["variantCount"], status["endpoints"]["summary"]) == (1, 2, "2/2")
    assert status["endpoints"]["byVariant"] == [{"variant": "dense", "revision": 1, "count": 2}]


def test_a_settled_site_writes_nothing() -> None:
    site = serving()
    before = copy.deepcopy(site.portfolio["status"])
    for _ in range(5):
        plan = site.cycle()
        assert (plan.apply, plan.delete_jobs, plan.events) == ((), (), ())
    assert site.portfolio["status"] == before


def test_contention_moves_one_endpoint_and_back_and_is_no_reconciliation() -> None:
    site = serving()
    for _ in range(6):
        site.report("edge-1", slowdown=4.0, met=False)
        site.report("edge-2")
        site.cycle()
        assert site.condition("Reconciling")[0] == "False"
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert site.portfolio["metadata"]["generation"] == 1
    for _ in range(40):
        site.report("edge-1")
        site.report("edge-2")
        site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_pods_are_made_anew_only_when_their_settings_change() -> None:
    site = serving()
    assert site.daemon_set is not None
    before = site.daemon_set
    site.edit(objectives={"latencyP95Milliseconds": 30}, revisionHistoryLimit=5)
    site.cycle()
    assert site.daemon_set is before
    site.edit(serving={"modelName": "digits", "managed": {"resources": {"limits": {"memory": "1Gi"}}}})
    plan = site.cycle()
    assert "DaemonSet" in [document["kind"] for document in plan.apply]
    site.edit(serving={"modelName": "digits", "mode": "Adopt", "adopt": {"selector": {"matchLabels": {"a": "b"}}}})
    site.cycle()
    assert site.daemon_set is None
    assert "address" not in site.portfolio["status"]


def test_silence_holds() -> None:
    site = serving()
    site.report("edge-1", slowdown=4.0, met=False)
    for _ in range(30):
        site.cycle(60)
    assert site.targets()["edge-1"] == "dense"
    assert site.endpoints["digits-edge-1"]["spec"]["reason"] == "StaleMetrics"


def test_an_operator_that_restarts_goes_on() -> None:
    site = serving()
    for _ in range(3):
        site.report("edge-1", slowdown=4.0, met=False)
        site.states = {}
        plan = site.cycle()
        assert [document["kind"] for document in plan.apply] in ([], ["ModelEndpoint"])
    site.report("edge-1", slowdown=4.0, met=False)
    for _ in range(5):
        site.report("edge-1", slowdown=4.0, met=False)
        site.cycle()
    assert site.targets()["edge-1"] == "small"


def test_annotations_apply_and_go() -> None:
    site = serving()
    annotations = site.nodes["edge-1"]["metadata"]["annotations"]
    annotations["slo.edgefolio.dev/latency-p95-ms"] = "5"
    for _ in range(6):
        for node in site.nodes:
            site.report(node)
        site.cycle()
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    annotations["slo.edgefolio.dev/latency-p95-ms"] = "quick"
    for _ in range(60):
        for node in site.nodes:
            site.report(node)
        site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}
    assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")
    del annotations["slo.edgefolio.dev/latency-p95-ms"]
    site.cycle()
    assert site.condition("ObjectivesAccepted")[0] == "True"


def test_pin_and_pause() -> None:
    site = serving()
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/pin-variant"] = "small"
    site.nodes["edge-2"]["metadata"]["annotations"]["edgefolio.dev/paused"] = "true"
    for _ in range(6):
        site.report("edge-1")
        site.report("edge-2", slowdown=4.0, met=False)
        site.cycle()
    assert site.targets() == {"edge-1": "small", "edge-2": "dense"}
    assert site.endpoints["digits-edge-1"]["spec"]["pinned"] is True
    assert site.endpoints["digits-edge-2"]["spec"]["reason"] == "Paused"
    site.pods[0]["metadata"]["annotations"]["edgefolio.dev/pin-variant"] = "absent"
    site.cycle()
    assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")


def test_bad_input_stalls_with_the_command_line_s_words_and_a_changed_spec_mends_it() -> None:
    site = Site()
    site.cycle()
    bad = FailureReport(kind="BadInput", field="spec.data.trainingURI", problem="it is empty.", remedy="Fill it.")
    site.end_job(bad)
    site.cycle()
    assert site.condition("Stalled") == ("True", "BadInput")
    assert site.portfolio["status"]["lastFailure"]["message"] == bad.one_line()
    site.jobs.clear()
    site.cycle()
    assert site.condition("Stalled") == ("True", "BadInput"), "also after the Job is gone"
    site.edit(data={"trainingURI": "builtin:fashion-mnist"})
    plan = site.cycle()
    assert [document["kind"] for document in plan.apply] == ["ConfigMap", "Job"]
    assert site.condition("Stalled")[0] == "False"


def test_a_bad_remake_leaves_the_old_revision_serving() -> None:
    site = serving()
    site.edit(seed=1)
    site.cycle()
    assert site.condition("Making")[0] == "True"
    assert site.condition("Reconciling")[0] == "False"
    site.end_job(FailureReport(kind="BadInput", field="spec.seed", problem="it is bad.", remedy="Change it."))
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("Stalled")[0] == "True"
    assert site.condition("Degraded") == ("True", "MakingFailed")
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_a_new_revision_rolls_out_in_waves() -> None:
    site = serving(nodes=4, rollout={"maxConcurrentPercent": 50, "analysisSeconds": 10})
    site.edit(seed=1)
    site.cycle()
    site.end_job(published(2))
    revisions = []
    for _ in range(30):
        site.cycle()
        revisions.append([entry["spec"]["revision"]["number"] for entry in site.endpoints.values()])
        for node in site.nodes:
            site.report(node)
    assert revisions[0] == [2, 2, 1, 1]
    assert revisions[-1] == [2, 2, 2, 2]
    assert site.condition("Reconciling")[0] == "False"
    assert site.portfolio["status"]["rollout"]["phase"] == "Completed"


def test_a_pinned_revision_that_is_not_kept_stalls() -> None:
    site = serving()
    site.edit(pinnedRevision=7)
    site.cycle()
    assert site.condition("Stalled") == ("True", "UnknownRevision")
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}


def test_an_agent_that_acted_while_it_was_cut_off_is_not_sent_back() -> None:
    site = serving()
    site.report("edge-1", slowdown=1.0)
    status = site.endpoints["digits-edge-1"]["status"]
    status["activeVariant"] = "small"
    status["residentVariants"] = ["small"]
    status["observation"]["traffic"]["meanComputeMilliseconds"] = "2"
    status["decision"] |= {"decidedBy": "Agent", "lastSwitchTime": time_text(site.now)}
    site.cycle()
    assert site.targets()["edge-1"] == "small"


def test_a_lost_node_is_not_counted_and_a_broken_pod_is() -> None:
    site = serving(nodes=3)
    site.nodes["edge-1"]["status"]["conditions"][0]["status"] = "Unknown"
    site.cycle()
    assert site.portfolio["status"]["endpoints"]["summary"] == "2/2"
    assert site.condition("Ready") == ("True", "Serving")
    site.pods[1]["status"]["conditions"][0]["status"] = "False"
    site.pods[1]["metadata"]["creationTimestamp"] = time_text(NOW - 3600)
    site.cycle()
    assert site.condition("Ready") == ("False", "EndpointsUnavailable")


@pytest.mark.parametrize(
    "spec", [{"seed": "x"}, {"serving": {"modelName": "A B"}}, {"objectives": {"maxMemory": "1 MB"}}]
)
def test_a_spec_that_only_the_models_can_judge_stalls(spec: dict[str, Any]) -> None:
    site = serving()
    site.edit(**spec)
    plan = site.cycle()
    assert (plan.apply, plan.delete_jobs) == ((), ())
    assert site.condition("Stalled") == ("True", "InvalidSpec")
