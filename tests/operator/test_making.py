"""Which Job exists for a portfolio, over its whole life."""

from __future__ import annotations

from typing import Any

import pytest

from edgefolio.contract.job_report import FailureReport, ProgressLine, PublishedReport
from edgefolio.contract.making_key import making_key
from edgefolio.specification.conditions import time_text
from edgefolio.specification.portfolio_status import JobStatus, VariantStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.cluster_state.job_status import observed_job
from edgefolio_operator.labels import pieces_job_name
from edgefolio_operator.revisions.pruning_job import PruningJobPlan, failure_of, plan_pruning_job

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


def job(
    key: str = KEY,
    *,
    condition: str = "",
    suspend: bool = False,
    message: str = "",
    request: str = "",
    pieces: int = 0,
    succeeded: int = 0,
    leaving: bool = False,
    pod: dict[str, Any] | None = None,
) -> Any:
    conditions = [{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    document = {
        "metadata": {
            "name": pieces_job_name("digits", key) if pieces else f"digits-make-{key[:8]}",
            "annotations": {
                "edgefolio.dev/specification-hash": key,
                "edgefolio.dev/make-request": request,
                **({"edgefolio.dev/pieces": str(pieces)} if pieces else {}),
            },
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}),
        },
        "spec": {"suspend": suspend},
        "status": {
            "startTime": "2026-01-01T00:00:00Z",
            "succeeded": succeeded,
            "conditions": conditions if condition else [],
        },
    }
    terminated = {"terminated": {"exitCode": 0, "message": message}}
    state = terminated if message else {"running": {}}
    return observed_job(document, [pod or {"status": {"containerStatuses": [{"name": "pruner", "state": state}]}}])


def plan(
    *jobs: Any,
    last: JobStatus | None = None,
    request: str = "",
    now: float = NOW,
    progress: dict[str, ProgressLine] | None = None,
    **spec: Any,
) -> PruningJobPlan:
    return plan_pruning_job(portfolio(**spec), request=request, last=last, jobs=jobs, now=now, progress=progress)


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


def test_a_failure_names_how_the_last_pod_died() -> None:
    killed = {"reason": "OOMKilled", "exitCode": 137}
    pod = {"status": {"containerStatuses": [{"name": "pruner", "state": {"terminated": killed}}]}}
    found = failure_of(job(condition="Failed", pod=pod))
    assert found is not None
    assert "OOMKilled, exit code 137" in found[1]


def test_progress_is_told_and_kept() -> None:
    name = f"digits-make-{KEY[:8]}"
    line = ProgressLine(stage="training", percent=40, message="sparse-1: epoch 2/3")
    first = plan(job(), last=plan().status, progress={name: line})
    assert first.status is not None
    assert (first.status.stage, first.status.progress_percent, first.status.message) == (
        "training",
        40,
        "sparse-1: epoch 2/3",
    )
    # A cycle without news changes nothing, so that nothing is written.
    assert plan(job(), last=first.status).status == first.status
    done = plan(job(condition="Complete", message=PUBLISHED.to_message()), last=first.status, progress={name: line})
    assert done.status is not None
    assert (done.status.progress_percent, done.status.message) == (100, "")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]},
            "The pod has no node: 0/3 nodes are available",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "pruner", "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "absent"}}}
                ]
            },
            "The container does not start: ErrImageNeverPull: absent",
        ),
    ],
)
def test_a_pod_that_does_not_start_says_why(status: dict[str, Any], said: str) -> None:
    made = plan(job(pod={"status": status}), last=plan().status)
    assert made.status is not None
    assert (made.status.outcome, made.status.stage, made.status.message) == ("Running", "waiting", said)
    later = plan(job(), last=made.status)
    assert later.status is not None
    assert later.status.message == ""


def test_an_attempt_that_failed_is_told_while_the_next_one_runs() -> None:
    failed = FailureReport(kind="Failed", problem="the store cannot be reached.")
    made = plan(job(message=failed.to_message()), last=plan().status)
    assert made.status is not None
    assert "the store cannot be reached." in made.status.message


APART: dict[str, Any] = {
    "source": {**SPEC["source"], "weightsURI": "s3://bucket/w.safetensors"},
    "methods": {"sparseTraining": {}, "oneShot": {"macsPercent": [50, 25]}},
    "job": {"parallelism": 2, "workDirectory": {"uri": "s3://bucket/work"}},
}
APART_KEY = making_key(portfolio(**APART).spec)


def test_pieces_are_made_first_and_then_put_together() -> None:
    first = plan(**APART)
    assert (first.create, first.pieces) == (True, 3)
    assert first.status is not None
    assert first.status.name == pieces_job_name("digits", APART_KEY)
    some = plan(job(APART_KEY, pieces=3, succeeded=1), last=first.status, **APART)
    assert some.status is not None
    assert (some.create, some.status.outcome, some.status.stage, some.status.progress_percent) == (
        False,
        "Running",
        "pieces",
        33,
    )
    made = job(APART_KEY, pieces=3, succeeded=3, condition="Complete")
    together = plan(made, last=some.status, **APART)
    assert (together.create, together.pieces, together.delete) == (True, 0, ())
    assert together.status is not None
    assert (together.status.name, together.status.attempt) == (f"digits-make-{APART_KEY[:8]}", 1)
    last = plan(
        made, job(APART_KEY, condition="Complete", message=PUBLISHED.to_message()), last=together.status, **APART
    )
    assert last.revision is not None
    assert last.status is not None
    assert last.status.outcome == "Succeeded"
    # Both Jobs are gone after their time to live: nothing is made again.
    assert plan(last=last.status, **APART).create is False


def test_a_piece_with_bad_input_ends_the_making() -> None:
    failed = job(APART_KEY, pieces=3, condition="Failed", message=BAD.to_message())
    made = plan(failed, last=plan(**APART).status, **APART)
    assert made.status is not None
    assert (made.create, made.status.outcome) == (False, "Failed")
    assert made.status.message == BAD.one_line()


def test_a_change_of_parallelism_while_pieces_are_made_makes_all_in_one_job() -> None:
    pieces = job(APART_KEY, pieces=3)
    made = plan(pieces, last=plan(**APART).status, **{**APART, "job": {**APART["job"], "parallelism": 1}})
    assert (made.create, made.pieces, made.delete) == (True, 0, (pieces.name,))


@pytest.mark.parametrize(("late", "is_lost"), [(10.0, False), (31.0, True)])
def test_a_pod_that_never_ends_is_given_up(late: float, is_lost: bool) -> None:
    pod = {
        "metadata": {"name": "digits-make-x", "deletionTimestamp": time_text(NOW - late)},
        "status": {"phase": "Running"},
    }
    made = plan(job(pod=pod), last=plan().status)
    assert made.lost == ("digits-make-x" if is_lost else "")
    assert made.delete == ((f"digits-make-{KEY[:8]}",) if is_lost else ())
    assert made.create is False
    again = plan(last=made.status)
    assert again.create is True


def test_a_pod_that_ended_late_is_no_reason() -> None:
    pod = {
        "metadata": {"name": "digits-make-x", "deletionTimestamp": time_text(NOW - 3600)},
        "status": {"phase": "Failed"},
    }
    assert plan(job(pod=pod), last=plan().status).lost == ""


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    made = plan(job(leaving=True), last=plan().status)
    assert (made.create, made.delete) == (False, ())
