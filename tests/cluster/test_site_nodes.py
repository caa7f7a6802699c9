"""Nodes that are drained, rebooted and short of memory: what serves goes on, and what was remembered is not lost."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cluster_site import wait_for
from control_plane import Refused
from edge_portfolio import SERVE_LABEL, SPEC
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

REASON = "edgefolio.dev/decision-reason"


def switches(site: EdgeSite, node: str) -> list[tuple[str, str]]:
    """The changes that the agent on ``node`` remembers: to which variant, and why."""
    found = (site.endpoints().get(node, {}).get("status") or {}).get("switches", [])
    return [(entry["toVariant"], entry["reason"]) for entry in found]


def pin(site: EdgeSite, node: str, variant: str | None) -> None:
    value = "-" if variant is None else f"={variant}"
    pod = site.pod_on(node)["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "--overwrite", "pod", pod, f"edgefolio.dev/pin-variant{value}")


def test_another_reason_is_no_new_order(site: EdgeSite) -> None:
    """People and the plug-in see it; the generation stands still, and the agent has nothing to acknowledge."""
    pod = site.pod_on("edge-1")["metadata"]["name"]

    def endpoint() -> dict[str, Any]:
        return site.endpoints()["edge-1"]

    def settled() -> dict[str, Any] | None:
        """The endpoint, once nothing of it changes any more: the order of a profile comes after the first variant."""
        found = endpoint()
        time.sleep(5)
        later = endpoint()
        is_same = (found["spec"], found["metadata"]["annotations"]) == (later["spec"], later["metadata"]["annotations"])
        return later if is_same else None

    before = wait_for(settled, seconds=90)
    told = before["metadata"]["annotations"][REASON]
    table = site.kubernetes.kubectl("get", "mep", pod).splitlines()
    assert "REASON" in table[0]
    assert told in table[1]
    assert not {"reason", "message"} & before["spec"].keys()
    # What somebody else writes there is set right, and neither is an order.
    site.kubernetes.kubectl("annotate", "--overwrite", "mep", pod, f"{REASON}=Nonsense")
    wait_for(lambda: endpoint()["metadata"]["annotations"][REASON] != "Nonsense", seconds=60)
    assert endpoint()["metadata"]["generation"] == before["metadata"]["generation"]
    assert endpoint()["spec"] == before["spec"]


def test_a_history_lasts_longer_than_the_agent(site: EdgeSite) -> None:
    pin(site, "edge-1", site.fastest)
    site.settle_on(site.fastest, "edge-1")
    pin(site, "edge-1", None)
    site.settle_on(site.most_accurate, "edge-1")
    wait_for(lambda: [name for name, _ in switches(site, "edge-1")[-1:]] == [site.most_accurate], seconds=30)
    told = switches(site, "edge-1")
    assert told[-2] == (site.fastest, "Pinned")
    assert told[-1][1] != "Pinned"
    site.kill("edge-1", "agent")
    pin(site, "edge-1", site.fastest)
    site.settle_on(site.fastest, "edge-1", seconds=90)
    wait_for(lambda: len(switches(site, "edge-1")) == min(16, len(told) + 1), seconds=30)
    assert switches(site, "edge-1")[:-1] == told[-15:]


def test_a_drained_node_serves_until_it_is_told_otherwise(site: EdgeSite) -> None:
    """A drain leaves what a DaemonSet made; a pod that is deleted meanwhile is replaced on the drained node."""
    client = site.start_client("edge-1")
    before = site.pod_on("edge-2")["metadata"]["name"]
    try:
        with pytest.raises(Refused, match="DaemonSet-managed"):
            site.kubernetes.within("default").kubectl("drain", "edge-2", "--timeout=20s")
        drain = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
        site.kubernetes.within("default").kubectl("drain", "edge-2", *drain)
        assert site.pod_on("edge-2")["metadata"]["name"] == before
        time.sleep(5)
        assert site.condition("Ready")[0] == "True"
        assert site.active("edge-2") == site.most_accurate
        pin(site, "edge-2", site.fastest)
        site.settle_on(site.fastest, "edge-2")
        site.kubernetes.kubectl("delete", "pod", before, "--wait=false")
        wait_for(lambda: site.pod_on("edge-2")["metadata"]["name"] != before, seconds=60)
        site.settle_on(site.most_accurate, "edge-2", seconds=120)
        # Whoever wants the node empty takes its label away.
        site.serve_on("edge-1")
        wait_for(lambda: set(site.endpoints()) == {"edge-1"}, seconds=90)
        site.wait_ready(seconds=60)
    finally:
        site.kubernetes.within("default").kubectl("uncordon", "edge-2")
        site.serve_on("edge-1", "edge-2")
    site.settle_on(site.most_accurate, "edge-2", seconds=120)
    assert not [request for request in client.stop() if request.error]


def test_a_rebooted_node_comes_back_with_what_is_on_its_disk(site: EdgeSite) -> None:
    """The same pod, its variants not fetched anew, its history whole; the neighbours do not notice."""
    pin(site, "edge-2", site.fastest)
    site.settle_on(site.fastest, "edge-2")
    wait_for(lambda: switches(site, "edge-2")[-1:] == [(site.fastest, "Pinned")], seconds=30)
    told = switches(site, "edge-2")
    client = site.start_client("edge-1")
    pod = site.pod_on("edge-2")
    with site.machine.frozen("s3"):
        site.machine.reboot("edge-2")
        wait_for(lambda: site.condition("Degraded")[0] == "True" or _restarts(site, pod), seconds=60)
        wait_for(lambda: _restarts(site, pod) and _is_ready(site), seconds=180)
        wait_for(lambda: site.active("edge-2") == site.fastest, seconds=60)
    site.wait_ready(seconds=60)
    assert site.pod_on("edge-2")["metadata"]["uid"] == pod["metadata"]["uid"]
    assert switches(site, "edge-2")[-len(told) :] == told
    # It obeys again.
    pin(site, "edge-2", None)
    site.settle_on(site.most_accurate, "edge-2", seconds=120)
    assert not [request for request in client.stop() if request.error]
    assert site.active("edge-1") == site.most_accurate


def test_two_portfolios_on_a_node_share_its_memory(site: EdgeSite) -> None:
    """Each endpoint keeps a variant that answers, whichever of the two is asked for less."""
    other = {key: value for key, value in SPEC.items() if key not in ("source", "data", "methods", "job", "profiling")}
    managed = {**SPEC["serving"]["managed"], "nodeSelector": {f"{SERVE_LABEL}-2": "yes"}}
    spec = {
        **{key: value for key, value in other.items() if key != "selection"},
        "serving": {"modelName": "digits", "managed": managed},
        "repository": {"uri": SPEC["repository"]["uri"], "secretRef": {"name": "s3-read"}},
    }
    document = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio"}
    node = site.kubernetes.within("default")
    node.kubectl("label", "--overwrite", "node", "edge-1", f"{SERVE_LABEL}-2=yes")
    client = site.start_client("edge-1")
    try:
        site.kubernetes.apply({**document, "metadata": {"name": "second"}, "spec": spec})
        site.wait_ready(name="second", seconds=180)
        peak = {str(entry["name"]): int(entry["memoryPeakBytes"]) for entry in site.variants()}
        tight = (peak[site.fastest] + peak[site.most_accurate]) // 2
        # Both are asked at once for less than the most accurate variant takes.
        node.kubectl("annotate", "--overwrite", "node", "edge-1", f"slo.edgefolio.dev/max-memory={tight}")
        wait_for(lambda: set(_served(site, "edge-1")) == {"digits", "second"}, seconds=60)
        wait_for(
            lambda: all(variant not in (None, site.most_accurate) for variant in _served(site, "edge-1").values()),
            seconds=120,
        )
        assert all(entry["status"].get("lastFailure") is None for entry in _endpoints(site, "edge-1"))
        node.kubectl("annotate", "node", "edge-1", "slo.edgefolio.dev/max-memory-")
        wait_for(lambda: set(_served(site, "edge-1").values()) == {site.most_accurate}, seconds=240)
    finally:
        site.kubernetes.kubectl("delete", "mpf", "second", "--ignore-not-found", "--timeout=120s")
        node.kubectl("label", "node", "edge-1", f"{SERVE_LABEL}-2-")
        wait_for(lambda: set(_served(site, "edge-1")) <= {"digits"}, seconds=120)
    assert not [request for request in client.stop() if request.error]


def _restarts(site: EdgeSite, pod: dict[str, Any]) -> int:
    """How often the containers of the pod on edge-2 were started again since ``pod`` was read."""

    def count(found: dict[str, Any]) -> int:
        parts = ("containerStatuses", "initContainerStatuses")
        return sum(entry["restartCount"] for part in parts for entry in found["status"].get(part, ()))

    return count(site.pod_on("edge-2")) - count(pod)


def _is_ready(site: EdgeSite) -> bool:
    conditions = site.pod_on("edge-2")["status"].get("conditions", ())
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _endpoints(site: EdgeSite, node: str) -> list[dict[str, Any]]:
    path = site.kubernetes.path("edgefolio.dev/v1alpha1", "ModelEndpoint")
    return [entry for entry in site.kubernetes.request("GET", path)["items"] if entry["spec"]["nodeName"] == node]


def _served(site: EdgeSite, node: str) -> dict[str, str | None]:
    """What the endpoints of all portfolios on ``node`` serve."""
    return {
        str(entry["spec"]["portfolioRef"]["name"]): (entry.get("status") or {}).get("activeVariant")
        for entry in _endpoints(site, node)
    }
