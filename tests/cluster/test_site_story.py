"""The story: installed, applied, made, served; a neighbour takes the processor, and goes again."""

from __future__ import annotations

import json
import time

import pytest
from cluster_site import wait_for
from edge_site import EdgeSite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_from_helm_install_to_two_serving_nodes(edge_site: EdgeSite) -> None:
    site = edge_site

    def row() -> list[str]:
        return site.kubernetes.kubectl("get", "mpf", "digits").splitlines()[1].split()

    # Ready is what serves; whether objectives are met is known after the first probes.
    wait_for(lambda: row()[5] == "2/2")
    assert row()[:2] == ["digits", "True"]
    assert set(site.endpoints()) == {"edge-1", "edge-2"}
    pointer = json.loads((site.bucket / "site" / "revisions" / "digits" / "current.json").read_text())
    pinned = site.portfolio()["status"]["revisions"][-1]
    assert (pointer["revision"], pointer["manifestSha256"]) == (pinned["number"], pinned["manifestDigest"])
    (job,) = site.kubernetes.request("GET", site.kubernetes.path("batch/v1", "Job"))["items"]
    assert job["status"]["succeeded"] == 1
    reasons = {entry["reason"] for entry in site.events()}
    assert "Published" in reasons
    described = site.kubernetes.kubectl("describe", "mpf", "digits")
    assert "Published" in described


def test_a_busy_neighbour_moves_one_node_and_no_request_fails(site: EdgeSite) -> None:
    clients = {node: site.start_client(node) for node in ("edge-1", "edge-2")}
    site.apply(objectives={"latencyP95Milliseconds": site.objective()})
    time.sleep(5)
    assert site.active("edge-2") == site.most_accurate
    began = time.time()
    hog = site.start_hog("edge-2")
    faster = wait_for(lambda: _another(site, "edge-2", than=site.most_accurate), seconds=60)
    left_at = time.time()
    reason = site.endpoints()["edge-2"]["metadata"]["annotations"]["edgefolio.dev/decision-reason"]
    time.sleep(5)
    assert site.active("edge-1") == site.most_accurate
    site.delete_pod(hog)
    site.settle_on(site.most_accurate, "edge-2", seconds=240)
    recorded = {node: client.stop() for node, client in clients.items()}
    assert not [request for requests in recorded.values() for request in requests if request.error]
    # Each client is answered by its own node: only the neighbour's client met the faster variant.
    versions = {node: {request.version for request in requests} for node, requests in recorded.items()}
    assert len(versions["edge-1"]) == 1
    assert len(versions["edge-2"]) >= 2
    assert left_at - began < 45, (left_at - began, faster)
    assert reason
    told = {entry["reason"] for entry in site.events()}
    assert {"LatencyViolated", "MoreAccurateFits"} <= told


def _another(site: EdgeSite, node: str, *, than: str) -> str | None:
    active = site.active(node)
    return active if active not in (None, than) else None
