"""An operator in a process of its own, and a site where the tests play kubelet, Job controller and agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from played_reports import COMPUTE, VARIANTS, holding_decision, steady_observation

from edgefolio.contract.endpoint_report import report_of_decision, report_of_observation
from edgefolio.contract.job_report import FailureReport, PublishedReport
from edgefolio.decision.types import State
from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.endpoint import EndpointStatus

SPEC: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
    "data": {"trainingURI": "builtin:digits"},
    "methods": {"sparseTraining": {}},
    "repository": {"uri": "s3://bucket/portfolios"},
    "serving": {"modelName": "digits"},
    "objectives": {"latencyP95Milliseconds": 20},
    "switching": {"downAfterSeconds": 1, "upAfterSeconds": 2, "settleSeconds": 0, "minDwellSeconds": 0},
}
PUBLISHED = PublishedReport(revision=1, manifest_digest="1" * 64, variants=VARIANTS)


def wait_for(claim: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Ask until ``claim`` holds; what it returned."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = claim()
        except AssertionError:
            if time.monotonic() > end:
                raise
            found = None
        if found:
            return found
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.1)


class Operator:
    """An operator in a process of its own, outside the cluster."""

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        folder: Path,
        *,
        identity: str,
        ports: tuple[int, int],
        environment: dict[str, str],
    ) -> None:
        self.probe_port = ports[0]
        self.metrics_port = ports[1]
        self.log = folder / f"{identity}-{time.monotonic_ns()}.log"
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "EDGEFOLIO_LEASE_NAMESPACE": namespace,
            "EDGEFOLIO_IDENTITY": identity,
            "EDGEFOLIO_CYCLE_SECONDS": "0.5",
            "EDGEFOLIO_METRICS_POLL_SECONDS": "1",
            "EDGEFOLIO_PROBE_PORT": str(self.probe_port),
            "EDGEFOLIO_METRICS_PORT": str(self.metrics_port),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "edgefolio_operator"],
                env={**os.environ, **settings, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Stop it as a kubelet does; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()

    def read(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())


def controller(api_version: str, owner: dict[str, Any]) -> dict[str, Any]:
    """The reference by which Kubernetes' controllers know what is theirs."""
    kind = {"batch/v1": "Job", "apps/v1": "DaemonSet"}[api_version]
    identity = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    return {"apiVersion": api_version, "kind": kind, **identity, "controller": True, "blockOwnerDeletion": True}


class Site:
    """A namespace with nodes, and what kubelet, Job controller and agents do there."""

    def __init__(self, kubernetes: Any, *, nodes: int = 2) -> None:
        self.kubernetes = kubernetes
        self._controlled_by = ""
        self.nodes = [f"{kubernetes.namespace}-edge-{number}" for number in range(1, nodes + 1)]
        for node in self.nodes:
            kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
            self.ready("Node", node)
            self.add_pod(node)

    def add_pod(self, node: str) -> None:
        metadata = {
            "name": f"digits-{node}",
            "labels": {"edgefolio.dev/portfolio": "digits", "edgefolio.dev/endpoint": "digits"},
        }
        container = {"name": "triton", "image": "bed.local/pause:1"}
        spec = {"nodeName": node, "containers": [container]}
        self.kubernetes.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self.ready("Pod", metadata["name"])

    def control_pods(self) -> None:
        """What the DaemonSet controller does with pods of the DaemonSet's labels: it takes them over."""
        items = self.kubernetes.request("GET", self.kubernetes.path("apps/v1", "DaemonSet"))["items"]
        found = next((entry for entry in items if entry["metadata"]["name"] == "digits"), None)
        if found is None or found["metadata"]["uid"] == self._controlled_by:
            return
        for node in self.nodes:
            self.control(f"digits-{node}", found)
        self._controlled_by = found["metadata"]["uid"]

    def control(self, pod: str, daemon_set: dict[str, Any]) -> None:
        self.kubernetes.request(
            "PATCH",
            self.kubernetes.path("v1", "Pod", pod),
            {"metadata": {"ownerReferences": [controller("apps/v1", daemon_set)]}},
            content_type="application/merge-patch+json",
        )

    def press(self, node: str, *shortages: str) -> None:
        """The kubelet of ``node`` says that it is short of these."""
        self.ready("Node", node, shortages=shortages)

    def ready(self, kind: str, name: str, status: str = "True", *, shortages: tuple[str, ...] = ()) -> None:
        conditions = [
            {"type": condition, "status": said, "lastTransitionTime": "2026-01-01T00:00:00Z"}
            for condition, said in (("Ready", status), *((shortage, "True") for shortage in shortages))
        ]
        document = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "status": {"conditions": conditions}}
        self.kubernetes.apply(document, subresource="status")

    def portfolio(self, *, name: str = "digits", **spec: Any) -> None:
        document = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": name}}
        self.kubernetes.apply({**document, "spec": {**SPEC, **spec}}, manager="user")

    def get(self, kind: str = "ModelPortfolio", name: str = "digits") -> dict[str, Any]:
        return self.kubernetes.request("GET", self.kubernetes.path("edgefolio.dev/v1alpha1", kind, name))

    def endpoint(self, number: int) -> dict[str, Any]:
        self.control_pods()
        return self.get("ModelEndpoint", f"digits-{self.nodes[number]}")

    def reason(self, number: int, part: str = "reason") -> str | None:
        """The operator's reason for what it asks of the endpoint, or its ``message``."""
        annotations = self.endpoint(number)["metadata"].get("annotations", {})
        told: str | None = annotations.get(f"edgefolio.dev/decision-{part}")
        return told

    def target(self, number: int) -> str | None:
        target: str | None = self.endpoint(number)["spec"].get("targetVariant")
        return target

    def message(self, kind: str, *, of: str = "digits") -> str:
        conditions = self.get(name=of).get("status", {}).get("conditions", [])
        return next((str(entry.get("message", "")) for entry in conditions if entry["type"] == kind), "")

    def condition(self, kind: str, *, of: str = "digits") -> tuple[str, str]:
        conditions = self.get(name=of).get("status", {}).get("conditions", [])
        found = next((entry for entry in conditions if entry["type"] == kind), {"status": "", "reason": "absent"})
        return found["status"], found["reason"]

    def jobs(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.kubernetes.request("GET", self.kubernetes.path("batch/v1", "Job"))["items"]
        return items

    def end_job(self, report: PublishedReport | FailureReport) -> None:
        """What Job controller and kubelet write when the Job's only pod ends."""
        (job,) = wait_for(self.jobs)
        name = job["metadata"]["name"]
        labels = {**job["spec"]["template"]["metadata"]["labels"], "job-name": name}
        template = job["spec"]["template"]["spec"]
        metadata = {"name": f"{name}-pod", "labels": labels, "ownerReferences": [controller("batch/v1", job)]}
        self.kubernetes.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template})
        succeeded = isinstance(report, PublishedReport)
        terminated = {
            "exitCode": 0 if succeeded else 2,
            "message": report.to_message(),
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:01Z",
        }
        container = {
            "name": "pruner",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": terminated},
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-pod"}}
        self.kubernetes.apply({**pod, "status": {"containerStatuses": [container]}}, subresource="status")
        now = "2026-01-01T00:00:02Z"
        kinds = ("SuccessCriteriaMet", "Complete") if succeeded else ("FailureTarget", "Failed")
        conditions = [
            {"type": kind, "status": "True", "reason": "Test", "lastProbeTime": now, "lastTransitionTime": now}
            for kind in kinds
        ]
        status = {"startTime": "2026-01-01T00:00:00Z", "conditions": conditions}
        if succeeded:
            status |= {"completionTime": now, "succeeded": 1}
        done = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "status": status}
        self.kubernetes.apply(done, subresource="status")

    def report(self, number: int, *, slowdown: float = 1.0) -> None:
        """The agent does as it is told and reports steady traffic at ``slowdown`` of the profile."""
        endpoint = self.endpoint(number)
        old = EndpointStatus.model_validate(endpoint.get("status") or {})
        active = endpoint["spec"]["targetVariant"]
        now = time.time()
        last = old.decision.last_switch_time if old.decision else None
        switched = old.active_variant not in (None, active)
        compute = COMPUTE[active] * slowdown
        observation = steady_observation(active, compute_milliseconds=compute)
        decision = holding_decision(objectives_met=compute * 1.2 < 20)
        state = State(
            compute_factor=slowdown, last_switch_at=now if switched else (time_seconds(last) if last else None)
        )
        status = EndpointStatus(
            observed_generation=endpoint["metadata"]["generation"],
            observed_epoch=endpoint["spec"]["epoch"],
            active_variant=active,
            active_revision=endpoint["spec"]["revision"]["number"],
            resident_variants=(active,),
            observation=report_of_observation(observation, now=now, valid_seconds=60),
            decision=report_of_decision(decision, state, decided_by_agent=False),
        )
        document = {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelEndpoint",
            "metadata": {"name": endpoint["metadata"]["name"]},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self.kubernetes.apply(document, subresource="status", manager="agent")

    def served(self, **spec: Any) -> None:
        """From nothing to a first revision that all endpoints serve."""
        self.portfolio(**spec)
        self.end_job(PUBLISHED)
        for number in range(len(self.nodes)):
            wait_for(lambda number=number: self.target(number) == "dense")
            self.report(number)
        wait_for(lambda: self.condition("Ready") == ("True", "Serving"))
