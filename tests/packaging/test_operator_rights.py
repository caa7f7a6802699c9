"""The chart's rights are enough: for the operator's work, for ``helm test``, for the hook before uninstalling.

The real programs, with tokens of the chart's service accounts, on a real API server.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_site import Operator, Site, wait_for
from control_plane import Kubernetes
from rendering import Chart, is_hook

from edgefolio.contract.job_report import FailureReport
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.kube.objects import owner_reference
from edgefolio_operator.resources.daemonset import build_daemon_set
from edgefolio_operator.resources.pruning_job import Images


def installed(kubernetes: Kubernetes, chart: Chart, values: dict[str, Any], *, hooks: bool = False) -> None:
    """Apply the chart as a release in the namespace of ``kubernetes``; nothing runs its pods here."""
    names = {"release": kubernetes.namespace, "namespace": kubernetes.namespace}
    values = {"crds": {"enabled": False}, **values}
    for document in chart.documents(values, **names):
        if document["kind"] not in ("Pod", "Job", "Deployment") and (hooks or not is_hook(document)):
            kubernetes.within("default").kubectl(
                "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document
            )


def token_of(kubernetes: Kubernetes, account: str) -> str:
    path = kubernetes.path("v1", "ServiceAccount", account)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    return str(kubernetes.request("POST", f"{path}/token", body)["status"]["token"])


def entering_as(kubernetes: Kubernetes, account: str, folder: Path) -> Path:
    """A kubeconfig with the token of a service account."""
    document = yaml.safe_load(kubernetes.kubeconfig.read_text())
    document["users"] = [{"name": "admin", "user": {"token": token_of(kubernetes, account)}}]
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def start_as(
    namespace: Kubernetes, tmp_path: Path, unused_ports: Callable[[int], list[int]]
) -> Iterator[Callable[..., Operator]]:
    """Starts the operator with a kubeconfig; it ends with the test."""
    started: list[Operator] = []

    def starting(kubeconfig: Path, **environment: str) -> Operator:
        first, second = unused_ports(2)
        operator = Operator(
            kubeconfig,
            namespace.namespace,
            tmp_path,
            identity="operator",
            ports=(first, second),
            environment=environment,
        )
        started.append(operator)
        return operator

    yield starting
    for operator in started:
        operator.end()
        print(operator.log.read_text())


@pytest.mark.parametrize(
    ("watch", "nodes"),
    [(False, False), (True, False), (True, True)],
    ids=["everywhere", "one namespace", "one namespace and all nodes"],
)
def test_the_operator_lacks_no_right(
    namespace: Kubernetes,
    chart: Chart,
    start_as: Callable[..., Operator],
    tmp_path: Path,
    watch: bool,
    nodes: bool,
) -> None:
    values: dict[str, Any] = {"watchNamespaces": [namespace.namespace], "readNodes": nodes} if watch else {}
    installed(namespace, chart, values)
    environment = {"EDGEFOLIO_NAMESPACES": namespace.namespace} if watch else {}
    environment |= {"EDGEFOLIO_READ_NODES": "true"} if nodes else {}
    kubeconfig = entering_as(namespace, f"{namespace.namespace}-edgefolio-operator", tmp_path)
    operator = start_as(kubeconfig, **environment)
    site = Site(namespace)
    site.served()
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")
    # A pod annotation counts either way, a node's only for who may read nodes.
    key = "slo.edgefolio.dev/latency-p95-ms"
    namespace.kubectl("annotate", "node", site.nodes[1], f"{key}=7")
    namespace.kubectl("annotate", "pod", f"digits-{site.nodes[0]}", f"{key}=9")
    wait_for(lambda: site.endpoint(0)["spec"]["objectives"]["latencyP95Milliseconds"] == 9)
    asked = 20 if watch and not nodes else 7
    wait_for(lambda: site.endpoint(1)["spec"]["objectives"]["latencyP95Milliseconds"] == asked)
    assert "edgefolio_leading 1.0" in operator.read(operator.metrics_port, "/metrics")
    # Its own finalizer, and what it owns deleted.
    site.portfolio(repository={"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"})
    path = namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits")
    wait_for(lambda: namespace.request("GET", path)["metadata"].get("finalizers"))
    # No kubelet says that the Job's pod has ended, and no garbage collector takes it away.
    namespace.kubectl("delete", "pod", "-l", "job-name", "--force", "--grace-period=0")
    namespace.kubectl("delete", "mpf/digits", "--wait=false")
    wait_for(lambda: [job for job in site.jobs() if job["metadata"]["name"] == "digits-reclaim"])
    assert operator.end() == 0
    # Neither roles nor the policy refused anything.
    log = operator.log.read_text().splitlines()
    assert [line for line in log if "orbidden" in line or "cannot" in line or "denied request" in line] == []
    namespace.request("PATCH", path, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")


def test_its_own_token_is_bound_by_the_policy(namespace: Kubernetes, chart: Chart, tmp_path: Path) -> None:
    """The chart names the operator's user: whatever the release is called, its account is meant and no other."""
    installed(namespace, chart, {"serviceAccount": {"name": "own"}})
    token = token_of(namespace, "own")
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}

    def refused(**headers: str) -> str:
        try:
            namespace.apply(probe, dry_run=True, headers=headers)
        except AssertionError as refusal:
            return str(refusal)
        return ""

    wait_for(lambda: "carry its label" in refused(Authorization=f"Bearer {token}"))
    assert f"{namespace.namespace}-edgefolio-operator-own-objects" in refused(Authorization=f"Bearer {token}")
    assert refused() == "", "others are not bound"


def test_directories_of_nodes_are_mounted_where_the_chart_says(
    namespace: Kubernetes, chart: Chart, tmp_path: Path
) -> None:
    """Models of endpoints may outlive a pod below ``rbac.hostPaths``, and nowhere else on a node."""
    installed(namespace, chart, {"serviceAccount": {"name": "own"}, "rbac": {"hostPaths": ["/var/lib/edgefolio"]}})
    token = token_of(namespace, "own")
    site = Site(namespace, nodes=0)
    site.portfolio()
    stored = site.get()
    portfolio = ModelPortfolio.model_validate({**stored, "status": None})
    images = Images(pruner="p", agent="a", triton="t")
    document = build_daemon_set(portfolio, owner=owner_reference(stored), images=images)

    def refused(volume: str, path: str, document: dict[str, Any] = document) -> str:
        changed = copy.deepcopy(document)
        volumes = changed["spec"]["template"]["spec"]["volumes"]
        volumes[:] = [entry for entry in volumes if entry["name"] != volume]
        volumes.append({"name": volume, "hostPath": {"path": path, "type": "Directory"}})
        try:
            namespace.apply(changed, dry_run=True, headers={"Authorization": f"Bearer {token}"})
        except AssertionError as refusal:
            return str(refusal)
        return ""

    wait_for(lambda: "rbac.hostPaths" in refused("models", "/etc"))
    assert refused("models", "/var/lib/edgefolio/models") == ""
    assert refused("models", "/var/lib/edgefolio/../kubelet") != ""
    for volume, path in (
        ("models", "/var/lib/edgefolio-other/models"),
        ("models", "/var/lib/edgefolio"),
        ("models", "/"),
        ("temporary", "/var/lib/edgefolio/models"),
    ):
        assert "rbac.hostPaths" in refused(volume, path), (volume, path)


class Script:
    """A script of the chart, run as its pod would run it: with the token of its service account."""

    def __init__(self, kubernetes: Kubernetes, chart: Chart, folder: Path, *, kind: str) -> None:
        self.kubernetes = kubernetes
        prefix = f"{kubernetes.namespace}-edgefolio"
        config = kubernetes.request("GET", kubernetes.path("v1", "ConfigMap", f"{prefix}-{kind}"))
        for name, text in config["data"].items():
            (folder / name).write_text(text)
        server = yaml.safe_load(kubernetes.kubeconfig.read_text())["clusters"][0]["cluster"]
        host, _, port = server["server"].removeprefix("https://").partition(":")
        account = folder / "account"
        account.mkdir()
        (account / "token").write_text(token_of(kubernetes, f"{prefix}-{kind}"))
        (account / "ca.crt").write_bytes(Path(server["certificate-authority"]).read_bytes())
        self._folder = folder
        self._environment = {
            **os.environ,
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "SERVICE_ACCOUNT": str(account),
            "OPERATOR_NAMESPACE": kubernetes.namespace,
            "OPERATOR_DEPLOYMENT": f"{prefix}-operator",
        }

    def start(self, name: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-W", "error", self._folder / name],
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


REPOSITORY = {"tests": {"repository": {"uri": "s3://bucket/tests"}}}


def test_helm_test_says_what_is_wrong_and_deletes_what_it_made(
    namespace: Kubernetes, chart: Chart, start_as: Callable[..., Operator], tmp_path: Path
) -> None:
    installed(namespace, chart, REPOSITORY, hooks=True)
    start_as(entering_as(namespace, f"{namespace.namespace}-edgefolio-operator", tmp_path))
    script = Script(namespace, chart, tmp_path, kind="test")
    running = script.start("check_installation.py", TIMEOUT_SECONDS="60")
    # What a Job says whose bucket does not exist.
    bad = FailureReport(kind="BadInput", field="spec.repository.uri", problem="no such bucket.", remedy="Make it.")
    Site(namespace, nodes=0).end_job(bad)
    # Nothing collects what the portfolio owned: on a whole cluster that is the garbage collector's.
    path = namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "edgefolio-test")
    wait_for(lambda: namespace.request("GET", path)["metadata"].get("deletionTimestamp"))
    released = {"metadata": {"finalizers": None}}
    namespace.request("PATCH", path, released, content_type="application/merge-patch+json")
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "operator acts" in said
    assert "portfolio is stalled: BadInput: " + bad.one_line() in said
    assert "what was made is deleted" in said
    with pytest.raises(AssertionError, match="not found"):
        namespace.request("GET", path)


def test_helm_test_without_a_repository_asks_the_operator_alone(
    namespace: Kubernetes, chart: Chart, start_as: Callable[..., Operator], tmp_path: Path
) -> None:
    installed(namespace, chart, {}, hooks=True)
    operator = start_as(entering_as(namespace, f"{namespace.namespace}-edgefolio-operator", tmp_path))
    script = Script(namespace, chart, tmp_path, kind="test")
    running = script.start("check_installation.py")
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "operator operator acts" in said
    assert "tests.repository.uri is not set" in said
    assert operator.end() == 0


@pytest.mark.parametrize("watch", [False, True], ids=["everywhere", "one namespace"])
def test_before_uninstalling_no_finalizer_of_ours_is_left(
    namespace: Kubernetes, chart: Chart, tmp_path: Path, watch: bool
) -> None:
    values: dict[str, Any] = {"watchNamespaces": [namespace.namespace]} if watch else {}
    installed(namespace, chart, values, hooks=True)
    (deployment,) = [
        document
        for document in chart.documents(
            {"crds": {"enabled": False}, **values}, release=namespace.namespace, namespace=namespace.namespace
        )
        if document["kind"] == "Deployment"
    ]
    namespace.kubectl("apply", "--server-side", "-f", "-", stdin=deployment)
    site = Site(namespace, nodes=0)
    site.portfolio()
    path = namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits")
    held = {"metadata": {"finalizers": ["edgefolio.dev/repository", "example.com/other"]}}
    namespace.request("PATCH", path, held, content_type="application/merge-patch+json")
    script = Script(namespace, chart, tmp_path, kind="uninstall")
    environment = {"NAMESPACES": namespace.namespace} if watch else {}
    running = script.start("release_finalizers.py", **environment)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert f"{namespace.namespace}/digits is released" in said
    assert namespace.request("GET", path)["metadata"]["finalizers"] == ["example.com/other"]
    name = f"{namespace.namespace}-edgefolio-operator"
    assert namespace.request("GET", namespace.path("apps/v1", "Deployment", name))["spec"]["replicas"] == 0
    # Once more is no mistake, and nothing is left to do.
    again, _ = script.start("release_finalizers.py", **environment).communicate(timeout=60)
    assert "0 portfolios released" in again
    released = {"metadata": {"finalizers": None}}
    namespace.request("PATCH", path, released, content_type="application/merge-patch+json")
