"""What a portfolio says when its pods are missing or do not start: counted against what is wanted, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from reconciled_site import Site

from edgefolio_operator.cluster_state.warning_events import ObjectWarning
from edgefolio_operator.cluster_state.workload_status import workload_status
from edgefolio_operator.kube.cache import strip_unread_fields

QUOTA = ObjectWarning(
    reason="FailedCreate", message='pods "digits-" is forbidden: exceeded quota: compute, used: pods=2'
)


def wanting(site: Site, count: int) -> Site:
    assert site.daemon_set is not None
    site.daemon_set["status"] = {"desiredNumberScheduled": count, "observedGeneration": 1}
    return site


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "triton", "state": state}]}


def test_a_quota_that_allows_no_pod() -> None:
    site = wanting(Site().served(), 2)
    site.pods, site.endpoints = [], {}
    site.warnings = {"daemon-set": QUOTA}
    plan = site.cycle()
    assert plan.suspects == ("daemon-set",)
    assert site.condition("Ready") == ("False", "PodsNotCreated")
    assert "0 of 2 endpoints serve" in site.message("Ready")
    assert "exceeded quota" in site.message("Ready")
    assert site.condition("Degraded") == ("True", "PodsNotCreated")
    assert [event.reason for event in plan.events] == ["PodsNotCreated"]
    assert site.cycle().events == (), "said once"


def test_one_pod_of_two_is_not_all() -> None:
    site = wanting(Site().served(), 2)
    site.pods = site.pods[:1]
    site.report("edge-1")
    site.warnings = {"daemon-set": ObjectWarning(reason="FailedCreate", message="service account not found")}
    site.cycle()
    assert site.condition("Ready") == ("False", "PodsNotCreated")
    assert "1 of 2 endpoints serve" in site.message("Ready")
    site.edit(serving={"modelName": "digits", "minAvailablePercent": 50})
    assert site.daemon_set is not None
    site.cycle()
    assert site.condition("Ready")[0] == "True"
    assert site.condition("Degraded")[0] == "True"


def test_a_pod_that_is_missing_for_a_moment_is_starting_and_for_long_is_missing() -> None:
    site = wanting(Site().served(), 3)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("Reconciling") == ("True", "EndpointsStarting")
    for _ in range(8):
        for node in ("edge-1", "edge-2"):
            site.report(node)
        site.cycle(10)
    assert site.condition("Ready") == ("False", "PodsNotCreated")
    wanting(site, 2)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")


def test_nobody_is_wanted_where_no_node_is_chosen() -> None:
    site = wanting(Site().served(), 0)
    site.pods, site.endpoints = [], {}
    site.cycle()
    assert site.condition("Ready") == ("True", "NoEndpoints")


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (waiting("ErrImagePull", "not found"), "ImageNotPulled", "ErrImagePull: not found"),
        (waiting("ImagePullBackOff", 'Back-off pulling "x": ErrImagePull: not found'), "ImageNotPulled", "not found"),
        (waiting("CreateContainerConfigError", 'secret "s3" not found'), "SecretMissing", 'secret "s3" not found'),
        (waiting("CreateContainerConfigError", "couldn't find key X in ConfigMap"), "PodsNotStarting", "couldn't find"),
        (waiting("CrashLoopBackOff", "back-off 40s restarting failed container"), "PodsNotStarting", "again and again"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient memory."}]},
            "Unschedulable",
            "Insufficient memory",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_cannot_start_counts_at_once(status: dict[str, Any], reason: str, words: str) -> None:
    site = wanting(Site().served(), 2)
    site.report("edge-1")
    site.report("edge-2")
    site.pods[1]["status"] = status
    site.pods[1]["metadata"]["creationTimestamp"] = "2027-01-15T08:00:00Z"
    site.cycle()
    assert site.condition("Ready") == ("False", reason)
    assert site.message("Ready").startswith("1 of 2 endpoints serve")
    assert words in site.message("Ready")
    assert words in site.portfolio["status"]["lastFailure"]["message"]


def test_a_missing_secret_that_is_mounted_is_in_events_alone() -> None:
    site = Site()
    site.cycle()
    wanting(site, 2)
    for pod in site.pods:
        pod["status"] = waiting("PodInitializing")
    plan = site.cycle()
    assert plan.suspects == ("edge-1", "edge-2")
    message = 'MountVolume.SetUp failed for volume "credentials" : secret "s3" not found'
    site.warnings = {"edge-1": ObjectWarning(reason="FailedMount", message=message)}
    site.cycle()
    assert site.condition("Ready") == ("False", "SecretMissing"), "though the first pruning run runs"
    for pod in site.pods:
        pod["status"] = {"initContainerStatuses": [{"name": "agent", "state": {"running": {}}}]}
    plan = site.cycle()
    assert (plan.suspects, site.condition("Ready")) == ((), ("False", "Making"))


def test_a_job_whose_secret_is_missing_is_told() -> None:
    site = Site()
    site.cycle()
    (name,) = site.jobs
    owner = {"ownerReferences": [{"kind": "Job", "name": name, "uid": name, "controller": True}]}
    status = waiting("CreateContainerConfigError", 'secret "s3" not found')
    site.job_pods = [{"metadata": {"name": "p", **owner}, "status": status}]
    plan = site.cycle()
    assert site.condition("Ready") == ("False", "SecretMissing")
    assert ("SecretMissing", True) in [(event.reason, event.warning) for event in plan.events]


def test_what_the_cache_keeps_of_a_pod_is_enough() -> None:
    status = {
        "phase": "Pending",
        "initContainerStatuses": [
            {"name": "key", "image": "x", "state": {"terminated": {"exitCode": 0, "containerID": "x"}}},
            {"name": "agent", "image": "x", "state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}},
        ],
    }
    pod = {"kind": "Pod", "metadata": {"name": "p", "uid": "p"}, "spec": {"nodeName": "n"}, "status": status}
    found = workload_status(None, [strip_unread_fields(pod)], {})
    assert found.trouble == ("ImageNotPulled", "container agent: ErrImagePull: denied")
    assert found.blocked == {"p"}


def synced(site: Site, node: str, reason: str, message: str = "") -> None:
    condition = {"type": "Synced", "status": "False", "reason": reason, "message": message}
    when = {"lastTransitionTime": "2027-01-15T08:00:00Z"}
    site.endpoints[f"digits-{node}"]["status"]["conditions"] = [{**condition, **when}]


def test_agents_that_are_refused_by_the_store_are_told_of_on_the_portfolio() -> None:
    site = Site().served()
    synced(site, "edge-1", "Verified")
    synced(site, "edge-2", "Unreachable", "access is denied (403).")
    plan = site.cycle()
    assert site.condition("RepositoryReadable") == ("False", "RepositoryUnreachable")
    assert site.message("RepositoryReadable").startswith("Some agents cannot read the repository: access is denied")
    assert [(event.reason, event.warning) for event in plan.events] == [("RepositoryUnreachable", True)]
    assert site.condition("Ready") == ("True", "Serving")
    assert site.cycle().events == ()
    synced(site, "edge-1", "Unreachable", "access is denied (403).")
    site.cycle()
    assert site.message("RepositoryReadable").startswith("All agents cannot read")
    for node in ("edge-1", "edge-2"):
        synced(site, node, "Verified")
    site.cycle()
    assert site.condition("RepositoryReadable") == ("True", "RepositoryRead")
