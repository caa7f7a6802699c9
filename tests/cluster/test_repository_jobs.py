"""Looks into a repository and its deletion, with a real API server, Job controller and S3. The test is the kubelet."""

from __future__ import annotations

from pathlib import Path

from cluster_site import PUBLISHED, wait_for

# The S3 server and the small portfolios of the tests beside these.
from drafts import publish_draft
from job_fixtures import MAKING, REQUEST, controllers, namespace, published, site
from job_site import JobSite
from s3_server import s3_endpoint, s3_uri

from edgefolio.manifest import CurrentPointer, sha256_of
from edgefolio.repository import Repository, layout

__all__ = ["controllers", "namespace", "s3_endpoint", "s3_uri", "site"]

FINALIZER = "edgefolio.dev/repository"
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}


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
    assert site.get()["metadata"]["finalizers"] == [FINALIZER], "before the first pruning run"
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
