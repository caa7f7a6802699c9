"""Following what others publish: when it is looked at, what is believed, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_reports import VARIANTS
from reconciled_site import NOW, Site, published

from edgefolio.contract.job_report import FailureReport, PublishedReport
from edgefolio.repository.signature import new_key_pair
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.portfolio_status import CheckStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.cluster_state.job_status import observed_job
from edgefolio_operator.revisions.repository_check import RepositoryCheckPlan, check_key, plan_repository_check

REPOSITORY = {"uri": "s3://bucket/portfolios"}


def portfolio(**spec: Any) -> ModelPortfolio:
    document = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    base = {"repository": REPOSITORY, "serving": {"modelName": "digits"}}
    return ModelPortfolio.model_validate({**document, "spec": {**base, **spec}})


KEY = check_key(portfolio().spec)


def job(name: str, report: Any = None, *, ended: bool = True) -> Any:
    kind = "Complete" if isinstance(report, PublishedReport) else "Failed"
    conditions = [{"type": kind, "status": "True", "message": "DeadlineExceeded"}] if ended else []
    document = {"metadata": {"name": name}, "status": {"conditions": conditions}}
    message = report.to_message() if report is not None else ""
    state = {"terminated": {"exitCode": 0, "message": message}} if report is not None else {"running": {}}
    return observed_job(document, [{"status": {"containerStatuses": [{"name": "pruner", "state": state}]}}])


def known(*numbers: int) -> tuple[RevisionStatus, ...]:
    return tuple(
        RevisionStatus(number=number, manifest_digest=f"{number:064x}", published_time=time_text(NOW))
        for number in numbers
    )


def plan(
    *jobs: Any,
    last: CheckStatus | None = None,
    now: float = NOW,
    request: str = "",
    uid: str = "u",
    revisions: tuple[RevisionStatus, ...] = (),
    **spec: Any,
) -> RepositoryCheckPlan:
    return plan_repository_check(
        portfolio(**spec), uid=uid, request=request, last=last, jobs=jobs, revisions=revisions, now=now
    )


def looked(report: Any, *, revisions: tuple[RevisionStatus, ...] = (), **spec: Any) -> RepositoryCheckPlan:
    """The plan after a first look that ended with this report."""
    first = plan(revisions=revisions, **spec)
    return plan(job(first.create, report), last=first.status, revisions=revisions, **spec)


def test_the_first_look_is_at_once_and_pins_what_it_finds() -> None:
    first = plan()
    assert first.create.startswith("digits-check-")
    assert first.status is not None
    assert first.status.job == first.create
    assert plan(job(first.create, ended=False), last=first.status, now=NOW + 60).create == ""
    found = plan(job(first.create, published(4)), last=first.status, now=NOW + 5)
    assert found.revision is not None
    assert (found.revision.number, found.revision.manifest_digest) == (4, f"{4:064x}")
    assert found.revision.variants == VARIANTS
    assert found.status is not None
    assert (found.status.outcome, found.status.job, found.trouble) == ("Found", "", None)
    # The Job stays to be looked at until the next one.
    assert found.delete == ()


def test_a_job_that_vanished_is_made_again_under_its_name() -> None:
    first = plan()
    again = plan(last=first.status, now=NOW + 20)
    assert again.create == first.create


@given(st.text(alphabet="abcdef0123456789-", min_size=1, max_size=36), st.integers(30, 86_400))
def test_the_next_look_is_after_the_interval_and_not_long_after(uid: str, interval: int) -> None:
    spec = {"repository": {**REPOSITORY, "checkIntervalSeconds": interval}}
    key = check_key(portfolio(**spec).spec)
    last = CheckStatus(specification_hash=key, outcome="Found", time=time_text(NOW))
    assert plan(last=last, uid=uid, now=NOW + interval - 1, **spec).create == ""
    assert plan(last=last, uid=uid, now=NOW + 1.1 * interval + 1, **spec).create != ""


def test_sites_do_not_look_together() -> None:
    last = CheckStatus(specification_hash=KEY, outcome="Found", time=time_text(NOW))
    looking = [bool(plan(last=last, uid=f"site-{number}", now=NOW + 315).create) for number in range(200)]
    assert 60 < sum(looking) < 140


def test_the_old_job_goes_when_the_next_look_begins() -> None:
    last = CheckStatus(specification_hash=KEY, outcome="Found", time=time_text(NOW))
    old = job("digits-check-old", published(4))
    following = plan(old, last=last, now=NOW + 3600)
    assert following.delete == ("digits-check-old",)
    assert following.create not in ("", "digits-check-old")


def test_a_request_and_a_changed_spec_are_looked_at_at_once() -> None:
    last = CheckStatus(specification_hash=KEY, outcome="Found", time=time_text(NOW))
    assert plan(last=last, now=NOW + 1).create == ""
    asked = plan(last=last, now=NOW + 1, request="now")
    assert asked.create != ""
    assert asked.status is not None
    assert plan(job(asked.create, ended=False), last=asked.status, now=NOW + 2, request="now").create == ""
    running = plan(last=last, now=NOW + 3600)
    superseding = plan(job(running.create, ended=False), last=running.status, now=NOW + 3601, pinnedRevision=2)
    assert superseding.create not in ("", running.create)
    assert superseding.delete == (running.create,)


def test_a_verification_key_is_asked_for_at_once() -> None:
    last = CheckStatus(specification_hash=KEY, outcome="Found", time=time_text(NOW))
    key = new_key_pair()[1].decode().splitlines()[-1]
    assert plan(last=last, now=NOW + 1, repository={**REPOSITORY, "verificationKey": key}).create != ""


UNREACHABLE = FailureReport(kind="Failed", field="spec.repository.uri", problem="the store cannot be reached.")
DENIED = FailureReport(kind="BadInput", field="spec.repository.uri", problem="there is no bucket 'b'.")
TAMPERED = FailureReport(kind="Refused", field="s3://b/revisions/digits/4.json", problem="the digest is another.")
NOTHING = FailureReport(kind="Nothing", field="spec.repository.uri", problem="nothing is published here.")


@pytest.mark.parametrize(
    ("report", "outcome", "reason"),
    [
        (UNREACHABLE, "Unreachable", "RepositoryUnreachable"),
        (DENIED, "Unreachable", "RepositoryUnreachable"),
        (TAMPERED, "Refused", "RevisionRefused"),
        (NOTHING, "Nothing", "NothingPublished"),
        (None, "Unreachable", "CheckFailed"),
    ],
)
def test_what_cannot_be_taken_changes_nothing_and_is_named(report: Any, outcome: str, reason: str) -> None:
    made = looked(report, revisions=known(3))
    assert made.revision is None
    assert made.status is not None
    assert (made.status.outcome, made.status.reason) == (outcome, reason)
    assert made.trouble is not None
    assert made.trouble[0] == reason
    if report is not None:
        assert report.problem in made.trouble[1]
    # What is said stays while the next look is under way.
    later = plan(last=made.status, now=NOW + 7200, revisions=known(3))
    assert (later.create != "", later.trouble) == (True, made.trouble)


def test_an_empty_repository_is_no_trouble_at_first() -> None:
    assert looked(NOTHING).trouble is None


def test_an_unreachable_repository_is_tried_again_soon() -> None:
    made = looked(UNREACHABLE, repository={**REPOSITORY, "checkIntervalSeconds": 3600})
    assert made.status is not None
    spec = {"repository": {**REPOSITORY, "checkIntervalSeconds": 3600}}
    assert plan(last=made.status, now=NOW + 50, **spec).create == ""
    assert plan(last=made.status, now=NOW + 70, **spec).create != ""


def test_a_changed_revision_is_refused() -> None:
    tampered = published(3).model_copy(update={"manifest_digest": "f" * 64})
    made = looked(tampered, revisions=known(2, 3))
    assert made.revision is None
    assert made.trouble is not None
    assert made.trouble[0] == "RevisionChanged"


def test_a_repository_that_goes_back_is_refused_unless_the_user_names_the_revision() -> None:
    made = looked(published(2), revisions=known(3))
    assert (made.revision, made.trouble and made.trouble[0]) == (None, "RevisionWentBack")
    named = looked(published(2), revisions=known(3), pinnedRevision=2)
    assert named.revision is not None
    assert named.trouble is None
    by_digest = {"repository": {**REPOSITORY, "manifestDigest": f"{2:064x}"}}
    assert looked(published(2), revisions=known(3), **by_digest).revision is not None


def test_with_a_source_nothing_is_looked_at() -> None:
    making = {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {}},
    }
    made = plan(job("digits-check-old", published(1)), **making)
    assert (made.status, made.create, made.delete) == (None, "", ("digits-check-old",))


class Follower(Site):
    """A site that follows; its Jobs look."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**{"source": None, "data": None, "methods": {}, **spec})

    def look(self, report: Any) -> None:
        """From the beginning of a look to its end."""
        self.cycle()
        self.end_job(report)
        self.cycle()


def test_a_follower_from_nothing_to_serving_and_through_trouble() -> None:
    site = Follower()
    first = site.cycle()
    assert [document["kind"] for document in first.apply if document["kind"] in ("Job", "ConfigMap")] == ["Job"]
    assert site.condition("Ready") == ("False", "WaitingForRevision")
    assert site.condition("Stalled")[0] == "False"
    site.end_job(published(1))
    site.cycle()
    assert site.targets() == {"edge-1": "dense", "edge-2": "dense"}
    for node in site.nodes:
        site.report(node)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert len(site.jobs) == 1

    site.now += 3600
    site.look(published(1).model_copy(update={"manifest_digest": "f" * 64}))
    plan = site.plan
    assert plan is not None
    assert ("RevisionChanged", True) in [(event.reason, event.warning) for event in plan.events]
    for node in site.nodes:
        site.report(node)
    site.cycle()
    assert site.condition("Ready") == ("True", "Serving")
    assert site.condition("Degraded") == ("True", "RevisionChanged")
    assert site.condition("Stalled")[0] == "False"
    status = site.portfolio["status"]
    assert status["lastFailure"]["reason"] == "RevisionChanged"
    assert status["revisions"][0]["manifestDigest"] == f"{1:064x}"

    site.now += 3600
    site.look(published(2))
    assert site.condition("Degraded")[1] != "RevisionChanged"
    assert [entry["number"] for entry in site.portfolio["status"]["revisions"]] == [1, 2]
    assert len(site.jobs) == 1


def test_a_quiet_follower_writes_nothing_between_two_looks() -> None:
    site = Follower()
    site.look(published(1))
    for node in site.nodes:
        site.report(node)
    site.cycle()
    before = site.portfolio["status"]
    for _ in range(20):
        assert site.cycle().apply == ()
    assert site.portfolio["status"] == before
    assert time_seconds(before["check"]["time"]) < site.now


def test_a_follower_that_cannot_read_says_so_before_it_serves() -> None:
    site = Follower()
    site.look(UNREACHABLE)
    assert site.condition("Ready") == ("False", "RepositoryUnreachable")
    assert site.condition("Reconciling") == ("True", "WaitingForRevision")
    assert site.condition("Stalled")[0] == "False"


def test_a_named_older_revision_is_kept_and_served() -> None:
    site = Follower(revisionHistoryLimit=2)
    for number in (3, 4, 5):
        site.now += 3600
        site.look(published(number))
    assert [entry["number"] for entry in site.portfolio["status"]["revisions"]] == [4, 5]
    site.edit(repository={**REPOSITORY, "manifestDigest": f"{2:064x}"})
    site.look(published(2))
    assert [entry["number"] for entry in site.portfolio["status"]["revisions"]] == [2, 5]
    assert site.portfolio["status"]["currentRevision"] == 2


def test_a_portfolio_that_gets_a_source_makes_and_keeps_serving() -> None:
    site = Follower()
    site.look(published(1))
    site.edit(
        source={"architecture": {"library": "edgefolio", "name": "cnn"}},
        data={"trainingURI": "builtin:digits"},
        methods={"sparseTraining": {}},
    )
    site.cycle()
    assert [name for name in site.jobs if "-check-" in name] == []
    assert site.condition("Making")[0] == "True"
    assert site.portfolio["status"]["currentRevision"] == 1
    assert "check" not in site.portfolio["status"]
