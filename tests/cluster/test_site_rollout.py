"""A new revision that loads and answers its probes, but cannot hold the objective: gone back in the first wave."""

from __future__ import annotations

import copy

import pytest
from cluster_site import wait_for
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_a_revision_that_breaks_the_objective_is_rolled_back_in_the_first_wave(site: EdgeSite) -> None:
    good = site.portfolio()["status"]["currentRevision"]
    objective = {"latencyP95Milliseconds": site.objective(times=2.2)}
    clients = [site.start_client(node) for node in ("edge-1", "edge-2")]
    site.apply(objectives=objective)
    slower = copy.deepcopy(site.spec["source"])
    slower["architecture"]["options"]["width"] = 160
    training = {**site.spec["methods"]["sparseTraining"], "denseEpochs": 1}
    site.apply(
        source=slower, methods={"sparseTraining": training, "oneShot": {"macsPercent": [95]}}, objectives=objective
    )
    seen: dict[str, set[int]] = {"edge-1": set(), "edge-2": set()}

    def rolled_back() -> bool:
        for node, endpoint in site.endpoints().items():
            if revision := endpoint.get("status", {}).get("activeRevision"):
                seen[node].add(revision)
        rollout = site.portfolio()["status"].get("rollout") or {}
        return rollout.get("phase") == "RolledBack" and rollout["revision"] > good

    wait_for(rolled_back, seconds=400)
    assert site.condition("Degraded") == ("True", "RolloutRolledBack")
    assert site.condition("Ready")[0] == "True"
    wait_for(lambda: all(entry["status"]["activeRevision"] == good for entry in site.endpoints().values()), seconds=60)
    # One wave is half of two nodes: the other one never left.
    assert sorted(map(len, seen.values())) == [1, 2]
    assert {"RolloutProgressing", "RolloutRolledBack"} <= {event["reason"] for event in site.events()}
    for client in clients:
        assert not [request for request in client.stop() if request.error]
