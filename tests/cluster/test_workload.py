"""Portfolios whose pods are refused or whose namespace goes, with Kubernetes' controllers; kwok plays kubelets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_site import PUBLISHED, Operator, Site, wait_for
from control_plane import ControlPlane, Refused, add_fake_nodes, install_resources
from kubernetes_bed import bed_programs

PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kwok")
MANAGED = {
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"operator": "Exists"}],
    "image": "example.com/triton:1",
}
SERVING = {"modelName": "digits", "managed": MANAGED}


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binaries = bed_programs(*PROGRAMS)
    with ControlPlane(binaries=binaries, folder=tmp_path_factory.mktemp("control-plane")) as kubernetes:
        install_resources(kubernetes)
        add_fake_nodes(kubernetes, 2)
        yield kubernetes


@pytest.fixture
def started(
    control_plane: Any, request: pytest.FixtureRequest, tmp_path: Path, unused_ports: Callable[[int], list[int]]
) -> Iterator[tuple[Site, Operator]]:
    """A namespace of this test's own with a site, and the operator that lives there."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name)[-50:].strip("-")
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kubernetes = control_plane.within(name)
    operator = Operator(
        kubernetes.kubeconfig, name, tmp_path, identity="operator-a", ports=unused_ports(2), environment={}
    )
    try:
        yield Site(kubernetes, nodes=0), operator
    finally:
        # What one test published must not bar the next one.
        kubernetes.request("DELETE", kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))
        operator.end()
        print(operator.log.read_text())


def pods(site: Site) -> list[Any]:
    items: list[Any] = site.kubernetes.request("GET", site.kubernetes.path("v1", "Pod"))["items"]
    return [pod for pod in items if pod["metadata"]["labels"].get("edgefolio.dev/endpoint")]


def quota(site: Site, count: int) -> None:
    """A quota, with what its controller would have counted."""
    hard = {"pods": str(count)}
    document = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    site.kubernetes.apply({**document, "spec": {"hard": hard}})
    used = {"pods": str(len(site.kubernetes.request("GET", site.kubernetes.path("v1", "Pod"))["items"]))}
    site.kubernetes.apply({**document, "status": {"hard": hard, "used": used}}, subresource="status")


def test_a_quota_that_allows_no_pods_is_named(started: tuple[Site, Operator]) -> None:
    site, _ = started
    nowhere = {**SERVING, "managed": {**MANAGED, "nodeSelector": {"type": "none"}}}
    site.portfolio(serving=nowhere)
    wait_for(site.jobs)
    site.end_job(PUBLISHED)
    wait_for(lambda: site.condition("Ready") == ("True", "NoEndpoints"))
    # The pod that the test played for the Job, and no more.
    quota(site, 1)
    site.portfolio(serving=SERVING)
    wait_for(lambda: site.condition("Ready") == ("False", "PodsNotCreated"), seconds=60)
    assert site.message("Ready").startswith("0 of 2 endpoints serve a verified variant; 2 are needed. FailedCreate: ")
    assert "exceeded quota: few" in site.message("Ready")
    assert site.condition("Degraded") == ("True", "PodsNotCreated")
    events = site.kubernetes.request("GET", site.kubernetes.path("v1", "Event"))["items"]
    told = [event for event in events if event["reason"] == "PodsNotCreated"]
    assert [event["involvedObject"]["kind"] for event in told] == ["ModelPortfolio"]
    # The quota is raised: the DaemonSet's controller tries again, and the portfolio says the truth again.
    quota(site, 10)
    site.kubernetes.kubectl("annotate", "daemonset", "digits", "example.com/try=again")
    wait_for(lambda: len(pods(site)) == 2, seconds=60)
    wait_for(lambda: site.condition("Ready")[1] != "PodsNotCreated")


def test_a_deleted_daemon_set_comes_back_and_its_pods_stay_endpoints(started: tuple[Site, Operator]) -> None:
    site, _ = started
    site.portfolio(serving=SERVING, repository={"uri": "s3://bucket/orphans"})
    wait_for(site.jobs)
    site.end_job(PUBLISHED)
    wait_for(lambda: len(endpoints(site)) == 2)
    before = {pod["metadata"]["uid"] for pod in pods(site)}
    site.kubernetes.kubectl("delete", "daemonset", "digits", "--cascade=orphan")
    wait_for(lambda: adopted(site))
    assert {pod["metadata"]["uid"] for pod in pods(site)} == before, "no pod was made anew"
    assert len(endpoints(site)) == 2


def endpoints(site: Site) -> list[Any]:
    items: list[Any] = site.kubernetes.request("GET", site.kubernetes.path("edgefolio.dev/v1alpha1", "ModelEndpoint"))[
        "items"
    ]
    return items


def adopted(site: Site) -> bool:
    """Whether a DaemonSet that is there controls all pods."""
    found = site.kubernetes.request("GET", site.kubernetes.path("apps/v1", "DaemonSet"))["items"]
    uids = {entry["metadata"]["uid"] for entry in found}
    owners = [{owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())} for pod in pods(site)]
    return bool(uids) and all(owner and owner <= uids for owner in owners)


@pytest.mark.parametrize("is_running", [True, False], ids=["operator-elsewhere", "operator-inside"])
def test_a_namespace_goes_although_a_portfolio_waits_for_its_revisions(
    started: tuple[Site, Operator], is_running: bool
) -> None:
    site, operator = started
    name = site.kubernetes.namespace
    repository = {"uri": f"s3://bucket/{name}", "reclaimPolicy": "Delete"}
    site.portfolio(serving=SERVING, repository=repository)
    wait_for(site.jobs)
    site.end_job(PUBLISHED)
    wait_for(lambda: site.get()["metadata"].get("finalizers"))
    site.kubernetes.request("DELETE", f"/api/v1/namespaces/{name}")
    if not is_running:
        # What the kubelet does to the operator's own pod.
        operator.end()
    wait_for(lambda: is_gone(site, name), seconds=60)


def is_gone(site: Site, name: str) -> bool:
    # Nobody plays the kubelet of the pod that the test made for the Job.
    for pod in site.kubernetes.request("GET", site.kubernetes.path("v1", "Pod"))["items"]:
        site.kubernetes.request(
            "DELETE", site.kubernetes.path("v1", "Pod", pod["metadata"]["name"]), {"gracePeriodSeconds": 0}
        )
    time.sleep(0.5)
    try:
        site.kubernetes.request("GET", f"/api/v1/namespaces/{name}")
    except Refused:
        return True
    return False
