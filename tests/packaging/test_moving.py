"""From the kustomization of the version before to this one, and from kustomize to Helm; on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from control_plane import ApiServer, Kubernetes, Refused
from kubernetes_bed import bed_programs
from rendering import CHART, MANIFESTS, SYSTEM, Chart, Kustomize, named

OVERLAY = MANIFESTS / "overlays" / "plain"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """An API server of this module's own, with nothing of Edgefolio."""
    binaries = bed_programs("etcd", "kube-apiserver", "kubectl")
    with ApiServer(binaries=binaries, folder=tmp_path_factory.mktemp("moving")) as kubernetes:
        kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        yield kubernetes


def deployment(kubernetes: Kubernetes) -> dict[str, Any]:
    inside = kubernetes.within(SYSTEM)
    return inside.request("GET", inside.path("apps/v1", "Deployment", "edgefolio-operator"))


def test_a_kustomization_of_before_is_replaced_and_helm_takes_it_over(
    empty: Kubernetes, kustomize: Kustomize, chart: Chart
) -> None:
    # As 0.1.0 of the first days selected.
    before = named(kustomize.documents(OVERLAY), "Deployment", "edgefolio-operator")
    for labels in (before["spec"]["selector"]["matchLabels"], before["spec"]["template"]["metadata"]["labels"]):
        del labels["app.kubernetes.io/instance"]
    empty.kubectl("apply", "--server-side", "-f", "-", stdin=before)
    apply = ("apply", "--server-side", "-k", str(OVERLAY))
    with pytest.raises(Refused, match="field is immutable"):
        empty.kubectl(*apply)
    # What the page says.
    empty.within(SYSTEM).kubectl("delete", "deployment", "edgefolio-operator")
    empty.kubectl(*apply)
    uid = deployment(empty)["metadata"]["uid"]

    where = ("--kubeconfig", str(empty.kubeconfig), "--namespace", SYSTEM)
    chart.run("install", "edgefolio", str(CHART), "--take-ownership", *where)
    after = deployment(empty)
    assert after["metadata"]["uid"] == uid, "the one that was there"
    assert after["metadata"]["annotations"]["meta.helm.sh/release-name"] == "edgefolio"
    assert after["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "edgefolio"
