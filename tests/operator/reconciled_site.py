"""What an API server would hold of one portfolio, in memory: plans are written into it."""

from __future__ import annotations

import copy
from typing import Any

from played_reports import COMPUTE, VARIANTS, holding_decision, steady_observation

from edgefolio.contract.endpoint_report import report_of_decision, report_of_observation
from edgefolio.contract.job_report import FailureReport, PublishedReport
from edgefolio.decision.types import MemoryState, State
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio_operator.cluster_state.report_clocks import Hearing
from edgefolio_operator.cluster_state.resource_usage import PodSample, Sample, Usage
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.cluster_state.warning_events import ObjectWarning
from edgefolio_operator.endpoints.memory_reservations import Promise, Reservations
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.portfolio import plan_portfolio
from edgefolio_operator.resources.pruning_job import Images

NOW = 1_800_000_000.0
IMAGES = Images(pruner="example.com/pruner:1", agent="example.com/agent:1", triton="example.com/triton:1")


#: Uid of the site's DaemonSet, which controls its pods.
DAEMON_SET = "daemon-set"


def control(kind: str, name: str, uid: str) -> dict[str, Any]:
    """``metadata.ownerReferences`` of what a Job or DaemonSet made."""
    return {"ownerReferences": [{"kind": kind, "name": name, "uid": uid, "controller": True}]}


def stored(document: dict[str, Any], uid: str) -> dict[str, Any]:
    """``document`` as the API server answers: with a uid."""
    return {**document, "metadata": {**document["metadata"], "uid": uid}}


def published(revision: int) -> PublishedReport:
    return PublishedReport(revision=revision, manifest_digest=f"{revision:064x}", variants=VARIANTS)


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
        allocatable = {"allocatable": {"cpu": "4", "memory": "2Gi"}}
        self.nodes: dict[str, dict[str, Any]] | None = {
            name: {"metadata": {"name": name, "annotations": {}}, "status": {**_ready(), **allocatable}}
            for name in names
        }
        self.usage = Usage(asked=True)
        self.lost_pods: dict[str, tuple[str, str]] = {}
        self.repository_owner: tuple[str, str] | None = None
        self.promises: tuple[Promise, ...] = ()
        self.pods = [
            {
                "metadata": {
                    "name": f"digits-{name}",
                    "uid": name,
                    "creationTimestamp": time_text(NOW - 60),
                    "annotations": {},
                    **control("DaemonSet", "digits", DAEMON_SET),
                },
                "spec": {"nodeName": name},
                "status": _ready(),
            }
            for name in names
        ]
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.daemon_set: dict[str, Any] | None = None
        self.service: dict[str, Any] | None = None
        self.account: dict[str, Any] | None = None
        self.server_version = ServerVersion()
        self.states: dict[str, State] = {}
        self.warnings: dict[str, ObjectWarning] = {}
        #: Seconds that agents' clocks are ahead, by endpoint.
        self.clock_offsets: dict[str, float] = {}
        self.plan: ReconcilePlan | None = None

    def cycle(self, seconds: float = 1.0) -> ReconcilePlan:
        """One cycle ``seconds`` later; what it plans is written."""
        self.now += seconds
        snapshot = PortfolioSnapshot(
            portfolio=copy.deepcopy(self.portfolio),
            jobs=list(self.jobs.values()),
            job_pods=self.job_pods,
            pods=self.pods,
            nodes=self.nodes,
            endpoints=list(self.endpoints.values()),
            hearings={name: Hearing(clock_offset=offset) for name, offset in self.clock_offsets.items()},
            daemon_set=self.daemon_set,
            service=self.service,
            account=self.account,
            server_version=self.server_version,
            lost_pods=self.lost_pods,
            repository_owner=self.repository_owner,
            warnings=self.warnings,
        )
        resources = ResourceView(usage=self.usage, reservations=Reservations.of(self.promises))
        plan = plan_portfolio(snapshot, resources=resources, images=IMAGES, states=self.states, epoch=1, now=self.now)
        for document in plan.apply:
            name = document["metadata"]["name"]
            if document["kind"] == "Job":
                self.jobs[name] = {**stored(document, name), "status": {"startTime": time_text(self.now)}}
            elif document["kind"] == "DaemonSet":
                self.daemon_set = stored(document, DAEMON_SET)
            elif document["kind"] == "Service":
                self.service = stored(document, "service")
            elif document["kind"] == "ModelEndpoint":
                self.endpoints[name] = {**self.endpoints.get(name, {}), **document}
        if plan.delete_daemon_set is not None:
            self.daemon_set = None
        for name in plan.delete_jobs:
            del self.jobs[name]
        for name in plan.delete_endpoints:
            del self.endpoints[name]
        self.promises = plan.promises
        self.portfolio["status"] = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.states = dict(plan.states)
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
        metadata = {"labels": {"job-name": name}, **control("Job", name, name)}
        self.job_pods.append({"metadata": metadata, "status": statuses})

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
        compute = COMPUTE[active] * slowdown
        memory = MemoryState(limit_bytes=2**30, working_set_bytes=2**27, node_available_bytes=2**31, age_seconds=0)
        observation = steady_observation(active, compute_milliseconds=compute, memory=memory)
        last = old.decision.last_switch_time if old.decision else None
        state = State(compute_factor=slowdown, last_switch_at=at or (time_seconds(last) if last else None))
        status = EndpointStatus(
            active_variant=active,
            active_revision=spec["revision"]["number"] if obey else old.active_revision,
            resident_variants=(active,),
            observation=report_of_observation(observation, now=self.now, valid_seconds=30),
            decision=report_of_decision(holding_decision(objectives_met=met), state, decided_by_agent=False),
        )
        entry["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def measure(self, *, cores: float, own_cores: float = 0.1, mebibytes: int = 512, age: float = 5.0) -> None:
        """metrics-server says that every node uses this much, and our pod on it that part of it."""

        def sample(used: float, memory: int) -> Sample:
            return Sample(cpu_cores=used, memory_bytes=memory * 2**20, time=self.now - age, window_seconds=15)

        assert self.nodes is not None
        self.usage = Usage(
            nodes={name: sample(cores, mebibytes) for name in self.nodes},
            pods={
                ("models", f"digits-{name}"): PodSample(total=sample(own_cores, 64), server_bytes=64 * 2**20)
                for name in self.nodes
            },
            asked=True,
        )

    def served(self) -> Site:
        """From nothing to a first revision that all endpoints serve; the site itself."""
        self.cycle()
        self.end_job(published(1))
        self.cycle()
        for name in list(self.endpoints):
            self.report(name.removeprefix("digits-"))
        self.cycle()
        return self

    def message(self, kind: str) -> str:
        (found,) = (entry for entry in self.portfolio["status"]["conditions"] if entry["type"] == kind)
        return str(found.get("message", ""))

    def condition(self, kind: str) -> tuple[str, str]:
        (found,) = (entry for entry in self.portfolio["status"]["conditions"] if entry["type"] == kind)
        return found["status"], found["reason"]

    def reason(self, node: str, part: str = "reason") -> str | None:
        """Why the endpoint on ``node`` is to serve its variant, in a word, or in a sentence: its ``message``."""
        annotations = self.endpoints[f"digits-{node}"]["metadata"].get("annotations", {})
        told: str | None = annotations.get(f"edgefolio.dev/decision-{part}")
        return told

    def targets(self) -> dict[str, str | None]:
        return {entry["spec"]["nodeName"]: entry["spec"].get("targetVariant") for entry in self.endpoints.values()}


def _ready() -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": "True"}]}
