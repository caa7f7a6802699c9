"""A release that never worked goes again, and what waits for an operator that is gone is released; as the pages say.

Kubernetes' own controllers for Jobs and namespaces, and no node: the hook's pod never runs, as with a wrong image.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_site import Operator, Site, wait_for
from control_plane import Kubernetes, Refused, install_resources
from job_site import JobControlPlane
from kubernetes_bed import bed_programs
from rendering import CHART, ROOT, SYSTEM, Chart, HelmError
from test_operator_rights import entering_as, installed

from edgefolio_operator.labels import FINALIZER

PAGE = (ROOT / "docs" / "cluster" / "upgrade.md").read_text()
DEADLINE = 10


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    binaries = bed_programs("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl")
    with JobControlPlane(binaries=binaries, folder=tmp_path_factory.mktemp("uninstall")) as kubernetes:
        install_resources(kubernetes)
        yield kubernetes


def helm(
    chart: Chart, kubernetes: Kubernetes, command: str, *arguments: str, values: dict[str, Any] | None = None
) -> str:
    where = ("--kubeconfig", str(kubernetes.kubeconfig), "--namespace", SYSTEM)
    given = () if values is None else (str(CHART), "--create-namespace", "--values", "-")
    return chart.run(command, "edgefolio", *arguments, *where, *given, stdin=json.dumps(values or {}))


def hold(kubernetes: Kubernetes, namespace: str) -> None:
    """A portfolio that waits for the operator when it is deleted."""
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    document = {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": "digits", "finalizers": [FINALIZER]},
        "spec": {
            "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
            "data": {"trainingURI": "builtin:digits"},
            "methods": {"sparseTraining": {}},
            "repository": {"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"},
            "serving": {"modelName": "digits"},
        },
    }
    kubernetes.within(namespace).apply(document)


def commands(heading: str) -> list[str]:
    """The indented blocks below a heading of the page, as a shell takes them."""
    part = PAGE.partition(f"### {heading}\n")[2].partition("\n#")[0]
    return [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", part, flags=re.MULTILINE)]


def run(kubernetes: Kubernetes, script: str) -> None:
    """A block of the page with kubectl at hand."""
    path = f"{kubernetes.binaries}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(kubernetes.kubeconfig)}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment, check=True, timeout=60)


def everything(kubernetes: Kubernetes) -> set[str]:
    """What there is of the release."""
    found = ""
    for kinds in (
        ("-n", SYSTEM, "get", "deploy,sa,cm,role,rolebinding,job,secret,service"),
        ("get", "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding"),
    ):
        found += kubernetes.within("default").kubectl(*kinds, "-o", "name", "--ignore-not-found")
    return {line for line in found.splitlines() if "edgefolio" in line}


def test_a_release_that_never_worked_goes(chart: Chart, controlled: Kubernetes) -> None:
    values = {
        "crds": {"enabled": False},
        "image": {"repository": "registry.invalid/no-such-image"},
        "uninstall": {"activeDeadlineSeconds": DEADLINE},
    }
    helm(chart, controlled, "install", values=values)
    hold(controlled, "models")
    before = everything(controlled)
    began = time.monotonic()
    with pytest.raises(HelmError, match=r"DeadlineExceeded|failed"):
        helm(chart, controlled, "uninstall")
    assert time.monotonic() - began < DEADLINE + 30, "far below helm's own five minutes"
    left = everything(controlled) - before
    # The Job that failed says why; the rights that it had are gone.
    assert "job.batch/edgefolio-uninstall" in left
    assert not [name for name in left if "role" in name]
    # Once more fails the same, and is not in its own way.
    with pytest.raises(HelmError, match=r"DeadlineExceeded|failed"):
        helm(chart, controlled, "uninstall")
    without_hook, *cleaning = commands("A release that never worked")
    assert "--no-hooks" in without_hook
    helm(chart, controlled, "uninstall", "--no-hooks")
    for script in cleaning:
        run(controlled, script)
    wait_for(lambda: not everything(controlled))
    models = controlled.within("models")
    path = models.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits")
    assert models.request("GET", path)["metadata"]["finalizers"] == [FINALIZER]
    (release,) = commands("Portfolios and namespaces that wait for an operator that is gone")
    run(controlled, release)
    assert "finalizers" not in models.request("GET", path)["metadata"]
    assert "deletionTimestamp" not in models.request("GET", path)["metadata"]


def test_a_namespace_that_waits_for_its_operator_is_released(controlled: Kubernetes) -> None:
    hold(controlled, "all-in-one")
    controlled.kubectl("delete", "namespace", "all-in-one", "--wait=false")

    def why() -> str:
        conditions = controlled.request("GET", "/api/v1/namespaces/all-in-one").get("status", {}).get("conditions", [])
        found = [entry["message"] for entry in conditions if entry["type"] == "NamespaceFinalizersRemaining"]
        return " ".join(found)

    wait_for(lambda: FINALIZER in why())
    (release,) = commands("Portfolios and namespaces that wait for an operator that is gone")
    run(controlled, release)
    wait_for(lambda: is_gone(controlled, "all-in-one"), seconds=60)


@pytest.mark.timeout(300)
def test_an_operator_of_all_namespaces_releases_its_own(
    chart: Chart, controlled: Kubernetes, tmp_path: Path, unused_ports: Callable[[int], list[int]]
) -> None:
    """Its account goes with the namespace, its rights do not, and its token is believed for some seconds more."""
    controlled.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own"}})
    inside = controlled.within("own")
    installed(inside, chart, {})
    first, second = unused_ports(2)
    kubeconfig = entering_as(inside, "own-edgefolio-operator", tmp_path)
    operator = Operator(kubeconfig, "own", tmp_path, identity="own", ports=(first, second), environment={})
    try:
        site = Site(inside, nodes=0)
        site.portfolio(repository={"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"})
        wait_for(lambda: site.get()["metadata"].get("finalizers"))
        controlled.kubectl("delete", "namespace", "own", "--wait=false")
        wait_for(lambda: is_gone(controlled, "own"), seconds=150)
    finally:
        operator.end()
        print(operator.log.read_text())


def is_gone(kubernetes: Kubernetes, namespace: str) -> bool:
    try:
        kubernetes.request("GET", f"/api/v1/namespaces/{namespace}")
    except Refused as refusal:
        return "not found" in str(refusal)
    return False
