"""Makings, looks and deletions with a real API server and Kubernetes' own Job controller. The test is the kubelet."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_site import PUBLISHED, Operator, wait_for
from control_plane import Kubernetes, install_resources

# The S3 server and the small portfolios of the tests beside these.
from drafts import publish_draft
from job_site import JobControlPlane, JobSite, log_server
from kubernetes_bed import bed_programs
from s3_server import s3_endpoint, s3_uri

from edgefolio.job_report import FailureReport, ProgressLine
from edgefolio.manifest import CurrentPointer, sha256_of
from edgefolio.repository import Repository, layout

__all__ = ["s3_endpoint", "s3_uri"]

MAKING: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
    "data": {"trainingURI": "builtin:digits"},
    "methods": {"sparseTraining": {}},
}
APART: dict[str, Any] = {
    **MAKING,
    "source": {**MAKING["source"], "weightsURI": "s3://bucket/w.safetensors"},
    "methods": {"oneShot": {"macsPercent": [60, 40, 25]}},
    "job": {"parallelism": 2, "workDirectory": {"uri": "s3://bucket/work"}},
}
BAD = FailureReport(kind="BadInput", field="spec.data.trainingURI", problem="it is empty.", remedy="Fill it.")
PASSING = FailureReport(kind="Failed", field="spec.data.trainingURI", problem="the store cannot be reached.")
FINALIZER = "edgefolio.dev/repository"
REQUEST = "edgefolio.dev/make-requested-at"
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    binaries = bed_programs("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl")
    with JobControlPlane(binaries=binaries, folder=tmp_path_factory.mktemp("controllers")) as kubernetes:
        install_resources(kubernetes)
        yield kubernetes


@pytest.fixture
def namespace(controllers: Kubernetes) -> Kubernetes:
    """In place of the one without controllers."""
    name = f"making-{next(_numbers)}"
    controllers.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return controllers.within(name)


@pytest.fixture
def site(namespace: Kubernetes, tmp_path: Path, start: Callable[..., Operator]) -> Iterator[JobSite]:
    start()
    made = JobSite(namespace, tmp_path)
    yield made
    namespace.kubectl("delete", "mpf", "--all", "--wait=false")
    for portfolio in namespace.request("GET", namespace.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))["items"]:
        namespace.kubectl(
            *("patch", "mpf", portfolio["metadata"]["name"], "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        )


def published(site: JobSite) -> bool:
    return bool(site.status().get("currentRevision"))


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


def test_following_from_the_first_look_to_a_tampered_manifest(site: JobSite, s3_uri: str, tmp_path: Path) -> None:
    repository = {"repository": {"uri": s3_uri}}
    site.portfolio(**repository)
    site.run("check", {})
    wait_for(lambda: site.status().get("check", {}).get("outcome") == "Nothing")
    assert site.condition("Ready") == ("False", "WaitingForRevision")
    first = publish_draft(s3_uri, tmp_path / "files", "one")
    site.annotate(REQUEST, "1")
    site.run("check", {})
    wait_for(lambda: published(site))
    (pinned,) = site.status()["revisions"]
    assert pinned["manifestDigest"] == sha256_of(first.to_bytes())
    assert [variant["name"] for variant in pinned["variants"]] == ["small", "large"]

    # Not to be reached: what is known serves on.
    site.annotate(REQUEST, "2")
    site.run("check", NOWHERE)
    wait_for(lambda: site.condition("Degraded") == ("True", "RepositoryUnreachable"))
    assert "Revision 1 serves on." in site.message("Degraded")
    assert (site.condition("Stalled")[0], site.condition("Ready")) == ("False", ("True", "NoEndpoints"))

    # The manifest is replaced, and the pointer vouches for the new one.
    storage = Repository.open(s3_uri).storage
    altered = first.model_copy(update={"created": "2027-01-01"}).to_bytes()
    storage.write(layout.manifest_path("digits", 1), altered)
    pointer = CurrentPointer(model="digits", revision=1, manifest_sha256=sha256_of(altered))
    storage.write(layout.pointer_path("digits"), pointer.model_dump_json(by_alias=True).encode())
    site.annotate(REQUEST, "3")
    site.run("check", {})
    wait_for(lambda: site.condition("Degraded") == ("True", "RevisionChanged"))
    assert site.status()["revisions"] == [pinned]
    assert "RevisionChanged" in site.events()
    assert len(site.jobs("check")) == 1, "the Jobs of earlier looks are gone"

    # A new revision heals it.
    publish_draft(s3_uri, tmp_path / "files", "two")
    site.annotate(REQUEST, "4")
    site.run("check", {})
    wait_for(lambda: site.status()["currentRevision"] == 2)
    assert site.condition("Degraded")[1] != "RevisionChanged"


def test_the_repository_is_looked_at_again_by_itself(site: JobSite, s3_uri: str, tmp_path: Path) -> None:
    publish_draft(s3_uri, tmp_path / "files", "one")
    site.portfolio(repository={"uri": s3_uri, "checkIntervalSeconds": 30})
    site.run("check", {})
    wait_for(lambda: published(site))
    publish_draft(s3_uri, tmp_path / "files", "two")
    site.start("check", seconds=45)


def test_deletion_takes_the_revisions_along(site: JobSite, s3_uri: str, tmp_path: Path) -> None:
    publish_draft(s3_uri, tmp_path / "files", "one")
    publish_draft(s3_uri, tmp_path / "files", "one", model="letters")
    site.portfolio(**MAKING, repository={"uri": s3_uri, "reclaimPolicy": "Delete"})
    wait_for(lambda: site.jobs("pruner"))
    assert site.get()["metadata"]["finalizers"] == [FINALIZER], "before the first making"
    making = site.start("pruner")
    site.kubernetes.kubectl("delete", "mpf", "digits", "--wait=false")
    wait_for(lambda: site.condition("Reclaiming") == ("True", "StoppingJobs"))
    site.end(making, 143)
    # The credentials do not do at first.
    for _ in range(3):
        site.run("reclaim", NOWHERE)
    wait_for(lambda: site.condition("Reclaiming") == ("True", "ReclaimFailed"), seconds=60)
    assert "reclaimPolicy: Retain" in site.message("Reclaiming")
    assert "ReclaimFailed" in site.events()
    site.kubernetes.kubectl("delete", "job", "digits-reclaim")  # sooner than the operator does
    assert "revisions 1 of model 'digits'" in site.run("reclaim", {})
    wait_for(lambda: not site.exists())
    assert Repository.open(s3_uri).models() == ("letters",)
    assert "RepositoryReclaimed" in site.events()
    wait_for(lambda: not site.jobs("reclaim"))


def test_retain_releases_it_while_its_job_fails(site: JobSite) -> None:
    repository = {"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"}
    site.portfolio(**MAKING, repository=repository)
    site.end(site.start("pruner"), 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    site.kubernetes.kubectl("delete", "mpf", "digits", "--wait=false")
    site.start("reclaim")
    patch = '{"spec":{"repository":{"reclaimPolicy":"Retain"}}}'
    site.kubernetes.kubectl("patch", "mpf", "digits", "--type=merge", "-p", patch)
    wait_for(lambda: not site.exists())
    assert "RepositoryRetained" in site.events()


def test_the_finalizer_follows_the_policy_and_leaves_others_alone(site: JobSite) -> None:
    site.portfolio(**MAKING)
    wait_for(lambda: site.jobs("pruner"))
    assert "finalizers" not in site.get()["metadata"]
    site.kubernetes.kubectl("patch", "mpf", "digits", "--type=merge", "-p", '{"metadata":{"finalizers":["a.b/c"]}}')
    repository = {"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"}
    site.portfolio(**MAKING, repository=repository)
    wait_for(lambda: site.get()["metadata"]["finalizers"] == ["a.b/c", FINALIZER])
    # What a GitOps tool applies again changes nothing.
    before = site.get()
    site.portfolio(**MAKING, repository=repository)
    after = site.get()
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert after["metadata"]["finalizers"] == ["a.b/c", FINALIZER]
    site.portfolio(**MAKING)
    wait_for(lambda: site.get()["metadata"]["finalizers"] == ["a.b/c"])


def test_a_namespace_that_is_deleted_is_not_held(site: JobSite) -> None:
    site.portfolio(**MAKING, repository={"uri": "s3://bucket/portfolios", "reclaimPolicy": "Delete"})
    site.end(site.start("pruner"), 0, PUBLISHED.to_message())
    wait_for(lambda: published(site))
    name = site.kubernetes.namespace
    site.kubernetes.request("DELETE", f"/api/v1/namespaces/{name}")
    wait_for(lambda: not site.exists())
    told = site.kubernetes.within("default").request("GET", "/api/v1/namespaces/default/events")["items"]
    (event,) = (entry for entry in told if entry["involvedObject"].get("name") == name)
    assert (event["reason"], event["type"]) == ("RepositoryRetained", "Warning")
    assert "s3://bucket/portfolios" in event["message"]
