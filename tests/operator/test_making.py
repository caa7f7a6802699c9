"""Which Job exists for a portfolio, over its whole life."""

from __future__ import annotations

from typing import Any

import pytest

from edgefolio.job_report import FailureReport, PublishedReport
from edgefolio.specification.portfolio_status import JobStatus, VariantStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.jobs import making_key
from edgefolio_operator.making import MakingPlan, failure_of, plan_making
from edgefolio_operator.observed_jobs import observed_job

NOW = 1_800_000_000.0
SPEC = {
    "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
    "data": {"trainingURI": "builtin:digits"},
    "methods": {"sparseTraining": {}},
    "repository": {"uri": "s3://bucket/portfolios"},
    "serving": {"modelName": "digits"},
}
PUBLISHED = PublishedReport(
    revision=4,
    manifest_digest="a" * 64,
    variants=(
        VariantStatus(
            name="dense",
            rank=1,
            accuracy_percent="99",
            mean_milliseconds="2",
            p95_milliseconds="3",
            load_milliseconds="100",
            memory_peak_bytes=2,
            memory_steady_bytes=1,
        ),
    ),
)
BAD = FailureReport(kind="BadInput", field="spec.data.trainingURI", value="x", problem="is bad.", remedy="Mend it.")


def portfolio(**spec: Any) -> ModelPortfolio:
    document = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    return ModelPortfolio.model_validate({**document, "spec": {**SPEC, **spec}})


KEY = making_key(portfolio().spec)


def job(key: str = KEY, *, condition: str = "", suspend: bool = False, message: str = "", request: str = "") -> Any:
    conditions = [{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    document = {
        "metadata": {
            "name": f"digits-make-{key[:8]}",
            "annotations": {"edgefolio.dev/specification-hash": key, "edgefolio.dev/make-request": request},
        },
        "spec": {"suspend": suspend},
        "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": conditions if condition else []},
    }
    terminated = {"terminated": {"exitCode": 0, "message": message}}
    pod = {"status": {"containerStatuses": [{"name": "pruner", "state": terminated if message else {"running": {}}}]}}
    return observed_job(document, [pod])


def plan(*jobs: Any, last: JobStatus | None = None, request: str = "", **spec: Any) -> MakingPlan:
    return plan_making(portfolio(**spec), request=request, last=last, jobs=jobs, now=NOW)


def test_a_new_portfolio_gets_its_job() -> None:
    made = plan()
    assert made.create
    assert made.status is not None
    assert (made.status.name, made.status.outcome, made.status.attempt) == (f"digits-make-{KEY[:8]}", "Running", 1)


def test_a_running_job_is_left_alone() -> None:
    first = plan()
    made = plan(job(), last=first.status)
    assert (made.create, made.delete, made.suspend, made.revision) == (False, (), None, None)
    assert made.status is not None
    assert made.status.outcome == "Running"


def test_success_is_published_and_kept_after_the_job_is_gone() -> None:
    made = plan(job(condition="Complete", message=PUBLISHED.to_message()), last=plan().status)
    assert made.revision is not None
    assert (made.revision.number, made.revision.manifest_digest) == (4, "a" * 64)
    assert made.revision.variants == PUBLISHED.variants
    assert made.status is not None
    assert made.status.outcome == "Succeeded"
    later = plan(last=made.status)
    assert (later.create, later.status) == (False, made.status)


def test_a_success_that_does_not_say_what_is_a_failure() -> None:
    made = plan(job(condition="Complete"), last=plan().status)
    assert made.revision is None
    assert made.status is not None
    assert made.status.outcome == "Failed"


def test_bad_input_is_not_tried_again_until_something_changes() -> None:
    failed = job(condition="Failed", message=BAD.to_message())
    assert failure_of(failed) == ("BadInput", "spec.data.trainingURI = 'x': is bad. Mend it.")
    made = plan(failed, last=plan().status)
    assert made.status is not None
    assert (made.status.outcome, made.create) == ("Failed", False)
    assert plan(last=made.status).create is False
    assert plan(last=made.status, seed=1).create is True
    assert plan(last=made.status, request="again").create is True


def test_a_job_that_somebody_deleted_is_made_again() -> None:
    again = plan(last=plan().status)
    assert again.create
    assert again.status is not None
    assert again.status.attempt == 2


def test_a_changed_spec_supersedes_the_running_job() -> None:
    made = plan(job(), last=plan().status, seed=7)
    assert made.create
    assert made.delete == (f"digits-make-{KEY[:8]}",)


@pytest.mark.parametrize(
    ("is_suspended", "wanted", "patch"), [(False, True, True), (True, False, False), (True, True, None)]
)
def test_suspension_follows_the_spec(is_suspended: bool, wanted: bool, patch: bool | None) -> None:
    made = plan(job(suspend=is_suspended), last=plan().status, job={"suspend": wanted})
    assert made.suspend is patch


def test_without_a_source_no_job_exists() -> None:
    made = plan(job(), source=None)
    assert (made.create, made.delete, made.status) == (False, (f"digits-make-{KEY[:8]}",), None)


def test_a_failure_without_words_points_at_the_logs() -> None:
    found = failure_of(job(condition="Failed", message="OOM"))
    assert found is not None
    assert found[0] == "MakingFailed"
    assert "logs" in found[1]
