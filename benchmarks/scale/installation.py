"""A control plane with played nodes, a portfolio whose revision is published, and the real operator as a process.

No pod of a Job can run on nodes that exist in the API only. The portfolio's status is therefore written once as the
operator would have left it after the Job: the published revision, and how the run ended. The operator starts after
that, and keeps both, as it does after every restart. The DaemonSet and its pods are made by operator and controllers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "cluster"))

from control_plane import ControlPlane, Kubernetes, Refused, add_fake_nodes, free_ports, install_resources, programs

from edgefolio.contract.making_key import making_key
from edgefolio.specification.conditions import time_text
from edgefolio.specification.portfolio_status import JobStatus, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio_operator import labels

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
OPERATOR_COMMAND = (sys.executable, "-m", "edgefolio_operator")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What the phases work on."""

    kubernetes: Kubernetes
    operator: subprocess.Popen[bytes]
    metrics_port: int
    folder: Path

    @property
    def selector(self) -> str:
        """Labels of the pods that are endpoints."""
        return f"{labels.ENDPOINT_LABEL}={settings.PORTFOLIO}"

    def ask(self, milliseconds: int) -> None:
        """Change the portfolio's objective, as a user does."""
        path = self.kubernetes.path(API_VERSION, "ModelPortfolio", settings.PORTFOLIO)
        patch = {"spec": {"objectives": {"latencyP95Milliseconds": milliseconds}}}
        self.kubernetes.request("PATCH", path, patch, content_type="application/merge-patch+json")

    def wait_until_ready(self) -> None:
        """Until the portfolio is Ready. Raises with its conditions if it does not become so."""
        try:
            self.kubernetes.kubectl("wait", "--for=condition=Ready", f"mpf/{settings.PORTFOLIO}", "--timeout=60s")
        except Refused as error:
            told = self.kubernetes.kubectl("get", f"mpf/{settings.PORTFOLIO}", "-o", "jsonpath={.status.conditions}")
            raise RuntimeError(f"{error}: {told}") from error


@contextmanager
def installed(size: int) -> Iterator[Installation]:
    """``size`` nodes, the portfolio, and an operator that has just been started."""
    with tempfile.TemporaryDirectory(prefix="edgefolio-scale-") as name:
        folder = Path(name)
        with ControlPlane(binaries=programs(*PROGRAMS), folder=folder) as cluster:
            install_resources(cluster)
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings.NAMESPACE}})
            add_fake_nodes(cluster, size)
            kubernetes = cluster.within(settings.NAMESPACE)
            publish(kubernetes)
            port = free_ports(1)[0]
            with (folder / "operator.log").open("wb") as log:
                operator = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *OPERATOR_COMMAND],
                    env={
                        **os.environ,
                        "KUBECONFIG": str(kubernetes.kubeconfig),
                        "EDGEFOLIO_LEASE_NAMESPACE": settings.NAMESPACE,
                        "EDGEFOLIO_METRICS_PORT": str(port),
                        "EDGEFOLIO_PROBE_PORT": "0",
                    },
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            try:
                yield Installation(kubernetes=kubernetes, operator=operator, metrics_port=port, folder=folder)
                if operator.poll() is not None:
                    raise RuntimeError(f"the operator ended with {operator.returncode}")
            except BaseException:
                print((folder / "operator.log").read_text()[-6000:], file=sys.stderr)
                raise
            finally:
                operator.terminate()
                operator.wait(timeout=30)


def publish(kubernetes: Kubernetes) -> None:
    """The portfolio with its first revision, as after a Job."""
    metadata = {"name": settings.PORTFOLIO}
    head: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "ModelPortfolio", "metadata": metadata}
    stored = kubernetes.apply({**head, "spec": settings.SPEC}, manager="user")
    key = making_key(ModelPortfolio.model_validate(stored).spec)
    now = time_text(time.time())
    revision = RevisionStatus(
        number=1, manifest_digest="1" * 64, specification_hash=key, published_time=now, variants=settings.VARIANTS
    )
    job = JobStatus(
        name=labels.job_name(settings.PORTFOLIO, key),
        specification_hash=key,
        outcome="Succeeded",
        start_time=now,
        completion_time=now,
        progress_percent=100,
    )
    status = PortfolioStatus(current_revision=1, revisions=(revision,), job=job)
    document = {**head, "status": status.model_dump(mode="json", by_alias=True, exclude_none=True)}
    kubernetes.apply(document, subresource="status", manager=labels.MANAGER)


def kubernetes_version() -> str:
    """Of all its programs: they are built together."""
    command = [str(programs(*PROGRAMS) / "kubectl"), "version", "--client", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["clientVersion"]["gitVersion"])
