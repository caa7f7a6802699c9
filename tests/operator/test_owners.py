"""Labels find objects, uids decide whose they are: nobody speaks for a portfolio by wearing its labels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from reconciled_site import DAEMON_SET, Site, control, published
from test_reclaiming import Ending

from edgefolio_operator.cluster_state.job_status import observed_jobs

OURS = {
    "edgefolio.dev/portfolio": "digits",
    "app.kubernetes.io/managed-by": "edgefolio-operator",
    "app.kubernetes.io/component": "pruner",
}
OTHERS = [
    pytest.param({}, id="nobody's"),
    pytest.param(control("Job", "digits-make", "another"), id="another's"),
    pytest.param({"ownerReferences": [{"kind": "Job", "name": "x", "uid": "JOB"}]}, id="owned, not controlled"),
]


def pod_of(job: str, report: Any, owner: dict[str, Any], *, created: str = "2028-01-01T00:00:00Z") -> dict[str, Any]:
    """A pod with the Job's labels that ended with ``report``."""
    state = {"terminated": {"message": report.to_message(), "exitCode": 0}}
    labels = {**OURS, "job-name": job, "batch.kubernetes.io/job-name": job}
    return {
        "metadata": {"name": "p", "labels": labels, "creationTimestamp": created, **copy.deepcopy(owner)},
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": "pruner", "state": state}]},
    }


@pytest.mark.parametrize("owner", OTHERS)
def test_a_pod_that_the_job_does_not_control_is_not_heard(owner: dict[str, Any]) -> None:
    site = Site()
    site.cycle()
    (name,) = site.jobs
    site.jobs[name]["metadata"]["uid"] = "JOB"
    forged = published(1).model_copy(update={"manifest_digest": "f" * 64})
    site.job_pods = [
        pod_of(name, published(1), control("Job", name, "JOB"), created="2026-01-01T00:00:00Z"),
        pod_of(name, forged, owner),
    ]
    site.jobs[name]["status"]["conditions"] = [{"type": "Complete", "status": "True"}]
    site.cycle()
    (revision,) = site.portfolio["status"]["revisions"]
    assert revision["manifestDigest"] == published(1).manifest_digest
    (job,) = observed_jobs(list(site.jobs.values()), site.job_pods[1:], "pruner")
    assert (job.report, job.died, job.waiting) == (None, "", "")


@pytest.mark.parametrize("owner", OTHERS)
def test_a_job_that_the_portfolio_does_not_control_is_neither_heard_nor_deleted(owner: dict[str, Any]) -> None:
    site = Site()
    site.cycle()
    (name,) = site.jobs
    genuine = site.jobs.pop(name)
    foreign = copy.deepcopy(genuine)
    foreign["metadata"].pop("ownerReferences")
    foreign["metadata"] |= copy.deepcopy(owner)
    foreign["status"]["conditions"] = [{"type": "Complete", "status": "True"}]
    site.jobs["foreign"] = {**foreign, "metadata": {**foreign["metadata"], "name": "foreign"}}
    site.job_pods = [pod_of("foreign", published(7), control("Job", "foreign", foreign["metadata"]["uid"]))]
    plan = site.cycle()
    assert "revisions" not in site.portfolio["status"] or not site.portfolio["status"]["revisions"]
    assert [document["kind"] for document in plan.apply if document["kind"] == "Job"] == ["Job"], "its own is missing"
    site.edit(seed=9)
    assert "foreign" not in site.cycle().delete_jobs


@pytest.mark.parametrize("owner", [{}, control("DaemonSet", "digits", "another"), control("ReplicaSet", "x", "y")])
def test_a_pod_of_another_maker_becomes_no_endpoint(owner: dict[str, Any]) -> None:
    site = Site().served()
    forged = copy.deepcopy(site.pods[0])
    forged["metadata"].pop("ownerReferences")
    forged["metadata"] |= {"name": "digits-forged", "uid": "forged", **copy.deepcopy(owner)}
    site.pods.append(forged)
    plan = site.cycle()
    assert not [document for document in plan.apply if document["kind"] == "ModelEndpoint"]
    assert site.portfolio["status"]["endpoints"]["total"] == 2


def test_pods_whose_daemon_set_is_made_anew_keep_their_endpoints() -> None:
    site = Site().served()
    before = copy.deepcopy(site.endpoints)
    # kubectl delete daemonset --cascade=orphan: for a moment nobody controls its pods.
    site.daemon_set = None
    for pod in site.pods:
        pod["metadata"].pop("ownerReferences")
    plan = site.cycle()
    assert plan.delete_endpoints == ()
    assert "DaemonSet" in [document["kind"] for document in plan.apply]
    assert site.endpoints == before
    for pod in site.pods:
        pod["metadata"] |= control("DaemonSet", "digits", DAEMON_SET)
    assert site.cycle().delete_endpoints == ()


def test_a_workload_that_another_portfolio_controls_is_not_taken_for_its_own() -> None:
    site = Site().served()
    for thing in (site.daemon_set, site.service):
        assert thing is not None
        thing["metadata"]["ownerReferences"] = control("ModelPortfolio", "digits", "the one before")["ownerReferences"]
    plan = site.cycle()
    assert {"DaemonSet", "Service"} <= {document["kind"] for document in plan.apply}


def test_an_endpoint_of_somebody_else_is_neither_used_nor_deleted() -> None:
    site = Site().served()
    forged = copy.deepcopy(site.endpoints["digits-edge-1"])
    forged["metadata"] |= {"name": "digits-forged", "ownerReferences": []}
    site.endpoints["digits-forged"] = forged
    assert site.cycle().delete_endpoints == ()
    forged["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    assert site.cycle().delete_endpoints == ()


def test_a_pod_made_anew_under_its_old_name_gets_an_endpoint_of_its_own() -> None:
    site = Site().served()
    site.pods[0]["metadata"]["uid"] = "made anew"
    plan = site.cycle()
    assert plan.delete_endpoints == ("digits-edge-1",)
    documents = [document for document in plan.apply if document["kind"] == "ModelEndpoint"]
    assert [document["metadata"]["ownerReferences"][0]["uid"] for document in documents] == ["made anew"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"creationTimestamp": "2020-01-01T00:00:00Z"}, id="made before the deletion"),
        pytest.param(control("Job", "x", "y"), id="another's"),
    ],
)
def test_a_job_that_was_planted_does_not_count_as_the_deletion_of_revisions(change: dict[str, Any]) -> None:
    site = Ending()
    site.step()
    site.end_reclaim()
    site.jobs["digits-reclaim"]["metadata"] |= copy.deepcopy(change)
    plan = site.step()
    assert plan is not None
    assert plan.finalizer is None
    assert [document["kind"] for document in plan.apply] == ["Job"]


def test_a_pod_that_does_not_start_gets_its_file_again() -> None:
    site = Site()
    site.cycle()
    (name,) = site.jobs
    metadata = {"name": "p", "creationTimestamp": "2027-01-15T08:00:01Z", **control("Job", name, name)}
    site.job_pods = [{"metadata": metadata, "status": {"phase": "Pending"}}]
    assert "ConfigMap" not in [entry["kind"] for entry in site.cycle().apply]
    assert [entry["kind"] for entry in site.cycle(30).apply if entry["kind"] != "ModelEndpoint"] == ["ConfigMap"]
    site.job_pods[0]["status"]["phase"] = "Running"
    assert site.cycle().apply == ()
