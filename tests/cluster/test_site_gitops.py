"""What GitOps tools see: Git's fields stay Git's, and an upgrade of the chart moves nothing but the operator."""

from __future__ import annotations

import pytest
from cluster_site import wait_for
from edge_site import SYSTEM, EdgeSite
from kstatus import compute

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def serving_pods(site: EdgeSite) -> dict[str, tuple[str, int]]:
    """Identity and restarts of every serving pod."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(
                entry["restartCount"]
                for key in ("containerStatuses", "initContainerStatuses")
                for entry in pod["status"].get(key, ())
            ),
        )
        for pod in site.pods("edgefolio.dev/endpoint")
    }


def switch_there_and_back(site: EdgeSite) -> None:
    """One switch by pin, and the way back."""
    pod = site.pod_on("edge-1")["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
    site.settle_on(site.fastest, "edge-1")
    site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")
    site.settle_on(site.most_accurate, "edge-1", seconds=120)


def test_switches_leave_no_difference_to_git(site: EdgeSite) -> None:
    before = site.portfolio()
    seen = set()
    for _ in range(3):
        pod = site.pod_on("edge-1")["metadata"]["name"]
        site.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
        wait_for(lambda: seen.add(compute(site.portfolio())) or site.active("edge-1") == site.fastest)
        site.kubernetes.kubectl("annotate", "pod", pod, "edgefolio.dev/pin-variant-")
        wait_for(
            lambda: seen.add(compute(site.portfolio())) or site.active("edge-1") == site.most_accurate,
            seconds=120,
        )
    assert seen == {"Current"}
    after = site.portfolio()
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    dry = site.apply(dry_run=True)
    assert dry["spec"] == after["spec"]
    assert dry["metadata"]["generation"] == after["metadata"]["generation"]
    assert dry["metadata"].get("annotations") == after["metadata"].get("annotations")


def test_an_upgrade_of_the_chart_restarts_the_operator_alone(site: EdgeSite) -> None:
    before = serving_pods(site)
    operator = _operator_pods(site)
    # The next version: other images by default for agents and Tritons, and another operator.
    site.install("--set=agent.image.tag=next", "--set=triton.image.tag=next", "--set=podAnnotations.version=next")
    wait_for(lambda: _operator_pods(site) and not _operator_pods(site) & operator, seconds=60)
    switch_there_and_back(site)
    assert serving_pods(site) == before
    site.install()
    switch_there_and_back(site)
    assert serving_pods(site) == before


def test_uninstalling_keeps_resources_and_strands_no_namespace(site: EdgeSite) -> None:
    other = EdgeSite(site.kubernetes, site.machine.run, namespace="leaving")
    other.prepare()
    other.apply(
        "kept", repository={**site.spec["repository"], "reclaimPolicy": "Delete", "uri": "s3://portfolios/leaving"}
    )
    wait_for(lambda: other.portfolio("kept").get("status", {}).get("observedGeneration"), seconds=60)
    client = site.start_client("edge-1", rate=4)
    before = serving_pods(site)
    site.helm("uninstall", "edgefolio", "--namespace", SYSTEM, "--wait")
    try:
        site.kubernetes.kubectl("get", "crd", "modelportfolios.edgefolio.dev", "modelendpoints.edgefolio.dev")
        assert site.portfolio()["status"]["currentRevision"]
        site.kubernetes.within("default").kubectl("delete", "namespace", "leaving", "--timeout=120s")
        assert serving_pods(site) == before
    finally:
        site.install()
    switch_there_and_back(site)
    assert serving_pods(site) == before
    assert not [request for request in client.stop() if request.error]


def _operator_pods(site: EdgeSite) -> set[str]:
    system = site.kubernetes.within(SYSTEM)
    path = system.path("v1", "Pod") + "?labelSelector=app.kubernetes.io/component=operator"
    return {
        pod["metadata"]["uid"]
        for pod in system.request("GET", path)["items"]
        if any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", []))
        and not pod["metadata"].get("deletionTimestamp")
    }
