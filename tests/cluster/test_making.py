"""Pruning runs with a real API server and Kubernetes' own Job controller. The test is the kubelet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cluster_site import PUBLISHED, wait_for
from job_fixtures import MAKING, REQUEST, controllers, namespace, published, site
from job_site import JobSite, log_server

from edgefolio.contract.job_report import FailureReport, ProgressLine

__all__ = ["controllers", "namespace", "site"]

APART: dict[str, Any] = {
    **MAKING,
    "source": {**MAKING["source"], "weightsURI": "s3://bucket/w.safetensors"},
    "methods": {"oneShot": {"macsPercent": [60, 40, 25]}},
    "job": {"parallelism": 2, "workDirectory": {"uri": "s3://bucket/work"}},
}
BAD = FailureReport(kind="BadInput", field="spec.data.trainingURI", problem="it is empty.", remedy="Fill it.")
PASSING = FailureReport(kind="Failed", field="spec.data.trainingURI", problem="the store cannot be reached.")


def outcome(site: JobSite) -> str:
    return str(site.status().get("job", {}).get("outcome"))


def test_infrastructure_is_tried_again_and_a_lost_node_costs_no_attempt(site: JobSite) -> None:
    site.portfolio(**MAKING, job={"backoffLimit": 1})
    for _ in range(2):  # more than it may fail
        site.end(site.start("pruner"), 137, disrupted=True)
    site.end(site.start("pruner", seconds=60), 1, PASSING.to_message())
    wait_for(lambda: "the store cannot be reached" in site.status()["job"].get("message", ""))
    assert outcome(site) == "Running"
    # The second failure in a row is answered after some seconds.
    site.end(site.start("pruner", seconds=60), 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    assert outcome(site) == "Succeeded"


def test_bad_input_fails_at_once_and_too_many_failures_in_the_end(site: JobSite) -> None:
    site.portfolio(**MAKING)
    site.end(site.start("pruner"), 2, BAD.to_message())
    wait_for(lambda: site.condition("Stalled") == ("True", "BadInput"))
    assert site.message("Stalled") == BAD.one_line()
    assert len(site.pods("pruner")) == 1
    site.portfolio(**MAKING, seed=2, job={"backoffLimit": 0})
    wait_for(lambda: site.condition("Stalled")[0] == "False")
    site.end(site.start("pruner"), 1, PASSING.to_message())
    wait_for(lambda: site.condition("Stalled") == ("True", "MakingFailed"))
    assert site.message("Stalled") == PASSING.one_line()


def test_a_request_makes_once_more_and_a_finished_job_is_not_run_again(site: JobSite) -> None:
    site.portfolio(**MAKING)
    site.end(site.start("pruner"), 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    (first,) = site.jobs("pruner")
    site.kubernetes.kubectl("delete", "job", first["metadata"]["name"])  # as its time to live does
    time.sleep(3)
    assert site.jobs("pruner") == []
    site.annotate(REQUEST, "2026-01-31T12:00:00Z")
    (second,) = wait_for(lambda: site.jobs("pruner"))
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert second["metadata"]["annotations"]["edgefolio.dev/make-request"] == "2026-01-31T12:00:00Z"
    # One that somebody deletes half-way is run again.
    site.start("pruner")
    site.kubernetes.kubectl("delete", "job", second["metadata"]["name"], "--wait=false")
    wait_for(lambda: site.status()["job"]["attempt"] == 2)
    again = wait_for(
        lambda: [job for job in site.jobs("pruner") if job["metadata"]["uid"] != second["metadata"]["uid"]]
    )
    assert again[0]["metadata"]["name"] == second["metadata"]["name"]


def test_a_changed_spec_ends_the_running_job_while_the_old_revision_serves_on(site: JobSite) -> None:
    site.portfolio(**MAKING)
    site.end(site.start("pruner"), 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    site.portfolio(**MAKING, seed=1)
    old = site.start("pruner")
    wait_for(lambda: site.condition("Making")[0] == "True")
    assert site.condition("Reconciling")[0] == "False"
    site.portfolio(**MAKING, seed=2)
    wait_for(
        lambda: all(job["metadata"]["name"] != old["metadata"]["labels"]["job-name"] for job in site.jobs("pruner"))
    )
    wait_for(lambda: any(pod["metadata"].get("deletionTimestamp") for pod in site.pods("pruner")))
    assert site.status()["currentRevision"] == 1
    assert site.condition("Ready") == ("True", "NoEndpoints")


def test_suspension(site: JobSite) -> None:
    site.portfolio(**MAKING, job={"suspend": True})
    wait_for(lambda: outcome(site) == "Suspended")
    time.sleep(1)
    assert site.pods("pruner") == []
    site.portfolio(**MAKING, job={"suspend": False})
    pod = site.start("pruner")
    wait_for(lambda: outcome(site) == "Running")
    site.portfolio(**MAKING, job={"suspend": True})
    wait_for(lambda: [one for one in site.pods("pruner") if one["metadata"].get("deletionTimestamp")])
    site.end(pod, 143)
    wait_for(lambda: outcome(site) == "Suspended")
    assert len(site.jobs("pruner")) == 1


def test_pieces_are_made_side_by_side_and_then_put_together(site: JobSite) -> None:
    site.portfolio(**APART)
    first, second = site.start("pruner"), site.start("pruner")
    time.sleep(1)
    assert site.pods("pruner", phase="Pending") == [], "two at a time"
    indexes = {pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for pod in (first, second)}
    assert indexes == {"0", "1"}
    (container,) = first["spec"]["containers"]
    assert container["args"][-2:] == ["--pieces", "3"]
    assert "JOB_COMPLETION_INDEX" in {entry["name"] for entry in container["env"]}
    site.end(first, 1, PASSING.to_message())
    site.end(second, 0)
    wait_for(lambda: site.status()["job"].get("stage") == "pieces" and site.status()["job"]["progressPercent"] == 33)
    for _ in range(2):
        site.end(site.start("pruner", seconds=60), 0)
    pod = site.start("pruner")
    assert "--pieces" not in pod["spec"]["containers"][0]["args"]
    assert len(site.jobs("pruner")) == 2
    site.end(pod, 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    assert site.status()["job"]["attempt"] == 1


def test_a_piece_with_bad_input_ends_all(site: JobSite) -> None:
    site.portfolio(**APART)
    other = site.start("pruner")
    site.end(site.start("pruner"), 2, BAD.to_message())
    wait_for(lambda: [pod for pod in site.pods("pruner") if pod["metadata"].get("deletionTimestamp")])
    site.end(other, 143)
    wait_for(lambda: site.condition("Stalled") == ("True", "BadInput"))
    assert site.message("Stalled") == BAD.one_line()


def test_a_pod_on_a_lost_node_is_given_up(site: JobSite) -> None:
    """With a pod failure policy Kubernetes waits for the end of a pod that its node will never report."""
    site.portfolio(**MAKING, job={"workDirectory": {"uri": "s3://bucket/work"}})
    lost = site.start("pruner")
    site.kubernetes.kubectl("delete", "pod", lost["metadata"]["name"], "--grace-period=1", "--wait=false")
    time.sleep(10)
    assert [pod["metadata"]["name"] for pod in site.pods("pruner")] == [lost["metadata"]["name"]], "nobody replaces it"
    following = site.start("pruner", seconds=60)
    assert following["metadata"]["name"] != lost["metadata"]["name"]
    assert "PodLost" in site.events()
    assert site.status()["job"]["attempt"] == 2
    site.end(following, 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))


def test_progress_comes_out_of_the_log(site: JobSite, tmp_path: Path) -> None:
    lines = [ProgressLine(stage="training", percent=40, message="dense: epoch 2/5").to_message()]
    with log_server(site.kubernetes, tmp_path, lines):
        site.portfolio(**MAKING)
        wait_for(lambda: site.status().get("job", {}).get("stage") == "waiting")
        assert "The pod has no node" in site.status()["job"]["message"]
        pod = site.start("pruner")
        wait_for(lambda: site.status()["job"].get("stage") == "training")
        job = site.status()["job"]
        assert (job["progressPercent"], job["message"]) == (40, "dense: epoch 2/5")
        row = site.kubernetes.kubectl("get", "mpf", "-o", "wide").splitlines()
        assert "STAGE" in row[0]
        assert "training" in row[1]
        # Other figures alone are no news.
        before = site.get()["metadata"]["resourceVersion"]
        lines.append(ProgressLine(stage="training", percent=40, message="dense: epoch 2/5, loss 1").to_message())
        time.sleep(7)
        assert site.get()["metadata"]["resourceVersion"] == before
        lines += [ProgressLine(stage="profile", percent=3, message="loading").to_message(), "Traceback"]
        wait_for(lambda: site.status()["job"]["stage"] == "profile")
        site.end(pod, 0, PUBLISHED.to_message())
        wait_for(lambda: published(site))
