"""Pruning runs that are disturbed: a killed pod, a lost node, bad input through the resource."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from bed_machine import container_id
from cluster_site import wait_for
from edge_site import EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def job_pods(site: EdgeSite, portfolio: str) -> list[dict[str, Any]]:
    """Pods of the portfolio's pruning runs, newest last."""
    selector = f"edgefolio.dev/portfolio={portfolio},app.kubernetes.io/component=pruner"
    return sorted(site.pods(selector), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def running(site: EdgeSite, portfolio: str) -> dict[str, Any] | None:
    """The newest pod, once its container runs."""
    pods = job_pods(site, portfolio)
    statuses = pods[-1]["status"].get("containerStatuses", []) if pods else []
    return pods[-1] if statuses and "running" in statuses[0]["state"] else None


def making(site: EdgeSite, name: str, node: str | None) -> None:
    """Apply a portfolio that is only made, nowhere served."""
    serving = {"modelName": name, "managed": {"nodeSelector": {"bed/serve": "nowhere"}}}
    job = {**site.spec["job"], "workDirectory": {"uri": f"s3://portfolios/work-{name}"}}
    if node is not None:
        job["nodeSelector"] = {"kubernetes.io/hostname": node}
    site.apply(name, serving=serving, job=job, repository={**site.spec["repository"], "uri": f"s3://portfolios/{name}"})


def revisions(site: EdgeSite, name: str) -> list[int]:
    """Numbers of the published revisions, as the bucket has them."""
    folder = site.bucket / name / "revisions" / name
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.json"))


def test_a_killed_pod_is_followed_by_one_that_resumes(site: EdgeSite) -> None:
    making(site, "killed", "edge-3")
    pod = wait_for(lambda: running(site, "killed"), seconds=60)
    wait_for(lambda: site.portfolio("killed").get("status", {}).get("job", {}).get("stage") == "training", seconds=90)
    time.sleep(3)
    site.machine.kill("edge-3", container_id(pod, "pruner"))
    site.wait_ready(name="killed", seconds=300)
    assert revisions(site, "killed") == [1]
    assert len(job_pods(site, "killed")) == 2
    site.kubernetes.kubectl("delete", "mpf", "killed")


def test_a_lost_node_is_followed_by_another(site: EdgeSite) -> None:
    making(site, "lost", None)
    pod = wait_for(lambda: running(site, "lost"), seconds=60)
    node = pod["spec"]["nodeName"]
    wait_for(lambda: site.portfolio("lost").get("status", {}).get("job", {}).get("stage") == "training", seconds=90)
    time.sleep(12)  # something is in the work directory by now
    site.machine.cut(node)
    try:
        wait_for(lambda: (found := running(site, "lost")) and found["spec"]["nodeName"] != node and found, seconds=240)
        site.wait_ready(name="lost", seconds=300)
        log = site.kubernetes.kubectl("logs", job_pods(site, "lost")[-1]["metadata"]["name"])
        assert "restored" in log
    finally:
        site.machine.heal(node)
    assert revisions(site, "lost") == [1]
    site.kubernetes.kubectl("delete", "mpf", "lost")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param(
            {"source": {"architecture": {"library": "timm", "name": "resnet-eighteen"}}},
            "spec.source.architecture.name",
            id="unknown architecture",
        ),
        pytest.param({"data": {"trainingURI": "s3://portfolios/nothing.npz"}}, "spec.data.trainingURI", id="no data"),
    ],
)
def test_bad_values_stall_with_the_message_of_the_command(site: EdgeSite, change: dict[str, Any], field: str) -> None:
    before = site.endpoints()
    site.apply("bad", **change, repository={**site.spec["repository"], "uri": "s3://portfolios/bad"})
    wait_for(lambda: site.condition("Stalled", "bad") == ("True", "BadInput"), seconds=120)
    assert site.message("Stalled", "bad").startswith(field)
    assert len(job_pods(site, "bad")) == 1
    # Nothing else is disturbed.
    assert {node: entry["metadata"]["generation"] for node, entry in site.endpoints().items() if node in before} == {
        node: entry["metadata"]["generation"] for node, entry in before.items()
    }
    site.kubernetes.kubectl("delete", "mpf", "bad")


def test_following_what_a_hub_published(site: EdgeSite) -> None:
    """A portfolio without a source serves what another one made."""
    managed = {**site.spec["serving"]["managed"], "nodeSelector": {"kubernetes.io/hostname": "edge-3"}}
    nothing = dict.fromkeys(("source", "data", "methods", "job"))
    site.apply("follower", **nothing, serving={"modelName": "digits", "managed": managed})
    wait_for(lambda: site.portfolio("follower").get("status", {}).get("currentRevision"), seconds=90)
    ours, theirs = site.portfolio("follower")["status"]["revisions"], site.portfolio()["status"]["revisions"]
    assert ours[-1]["manifestDigest"] == theirs[-1]["manifestDigest"]
    assert json.dumps(ours[-1]["variants"]) == json.dumps(theirs[-1]["variants"])
    site.wait_ready(name="follower", seconds=120)
    site.kubernetes.kubectl("delete", "mpf", "follower")
    wait_for(lambda: set(site.endpoints()) == {"edge-1", "edge-2"}, seconds=90)
