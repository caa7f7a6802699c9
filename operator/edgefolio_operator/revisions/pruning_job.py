"""Lifecycle of the Job that makes a revision. Pure: status and Jobs in, plan out.

A pruning run is identified by its key (what it is made from, and the user's request). The outcome is kept in the
status under that key: a Job that its time to live removed is not run again, one that was deleted before its end is.

With ``job.parallelism`` there are two Jobs for a key: the pods of the first make pieces and leave them in the work
directory; when all are made, the second finds them there, puts them together and publishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefolio.contract.job_report import FailureReport, ProgressLine, PublishedReport
from edgefolio.contract.making_key import making_key
from edgefolio.contract.work_pieces import pieces_of
from edgefolio.specification.conditions import time_text, truncated
from edgefolio.specification.portfolio_status import JobStatus, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio, PortfolioSpecification
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ENDED, ObservedJob

#: A terminating pod this long overdue is on a node that does not answer.
LOST_POD_SECONDS = 30.0
#: A pod of a Job starts within this time, or something prevents it.
STARTING_SECONDS = 15.0
PIECES_STAGE = "pieces"
WAITING_STAGE = "waiting"


@dataclass(frozen=True, kw_only=True)
class PruningJobPlan:
    """The next step; ``status`` is the new ``status.job``, ``revision`` what was just found published.

    ``create``: the Job that makes ``pieces`` of it, or all (0). ``lost``: a pod whose node does not answer, so that the
    Job is run again elsewhere.
    """

    status: JobStatus | None = None
    create: bool = False
    pieces: int = 0
    delete: tuple[str, ...] = ()
    suspend: bool | None = None
    revision: RevisionStatus | None = None
    key: str = ""
    request: str = ""
    lost: str = ""


def plan_pruning_job(
    portfolio: ModelPortfolio,
    *,
    request: str,
    last: JobStatus | None,
    jobs: Sequence[ObservedJob],
    now: float,
    progress: Mapping[str, ProgressLine] | None = None,
    api_clock_offset: float = 0.0,
) -> PruningJobPlan:
    """Which Job is created, deleted, suspended or kept. ``last`` is the stored ``status.job``.

    ``progress``: the last progress line of each Job, by name. ``api_clock_offset``: how far the API server's clock, by
    which pods are to end, is ahead of ours.
    """
    if portfolio.spec.source is None:
        return PruningJobPlan(delete=tuple(job.name for job in jobs))
    key = making_key(portfolio.spec, request=request)
    pieces = pieces_to_make(portfolio.spec)
    others = tuple(job.name for job in jobs if job.key != key or (job.pieces and job.pieces != pieces))
    same = last is not None and last.specification_hash == key
    if last is not None and same and last.outcome in ENDED:
        return PruningJobPlan(status=last, delete=others, key=key, request=request)
    mine = {bool(job.pieces): job for job in jobs if job.key == key and job.name not in others}
    current = mine.get(False) or mine.get(True)
    if current is not None and current.is_leaving:
        # Deleted by hand; its name is free once it is gone.
        return PruningJobPlan(
            status=_status_of(current, last if same else None, None), delete=others, key=key, request=request
        )
    if current is None or (current.pieces and current.outcome == "Succeeded"):
        pieces = 0 if current is not None else pieces
        earlier = last.attempt if last is not None and same else 0
        status = JobStatus(
            name=(labels.pieces_job_name if pieces else labels.job_name)(portfolio.metadata.name, key),
            specification_hash=key,
            request=request,
            outcome="Suspended" if portfolio.spec.job.suspend else "Running",
            attempt=max(1, earlier) if current is not None else earlier + 1,
            start_time=time_text(now),
        )
        return PruningJobPlan(status=status, create=True, pieces=pieces, delete=others, key=key, request=request)
    status = _status_of(current, last if same else None, (progress or {}).get(current.name))
    if (lost := _lost_pod(current, now=now + api_clock_offset)) is not None:
        return PruningJobPlan(status=status, delete=(*others, current.name), key=key, request=request, lost=lost)
    return PruningJobPlan(
        status=status,
        delete=others,
        suspend=_wanted_suspension(current, portfolio.spec.job.suspend),
        revision=_published(current, now=now),
        key=key,
        request=request,
    )


def unreadable_job(stored: Any, planned: PruningJobPlan, revisions: Sequence[RevisionStatus]) -> JobStatus | None:
    """What takes the place of a ``status.job`` that only another version can read, where a Job would be created.

    A run is never repeated because its outcome is not understood. ``None`` if the entry is about another run.
    """
    found = stored.get("specificationHash") if isinstance(stored, Mapping) else None
    if not stored or planned.status is None or (isinstance(found, str) and found != planned.key):
        return None
    published = any(entry.specification_hash == planned.key for entry in revisions)
    message = (
        "status.job was written by another version and cannot be read, so that nothing is made again. "
        f"To make anew, set the annotation {labels.MAKE_REQUESTED_ANNOTATION} to another value."
    )
    return planned.status.model_copy(
        update={
            "outcome": "Succeeded" if published else "Failed",
            "start_time": None,
            "message": "" if published else message,
            "progress_percent": 100 if published else 0,
        }
    )


def nothing_made(last: JobStatus | None, jobs: Sequence[ObservedJob]) -> PruningJobPlan:
    """The plan of a portfolio that may not make: no Job; the outcome of the last one is kept."""
    return PruningJobPlan(
        status=last if last is not None and last.outcome in ENDED else None, delete=tuple(job.name for job in jobs)
    )


def pieces_to_make(spec: PortfolioSpecification) -> int:
    """Number of pieces that pods make in parallel; 0 where one pod makes all."""
    count = len(pieces_of(spec.methods)) if spec.job.parallelism > 1 else 0
    return count if count > 1 else 0


def lacks_its_file(making: PruningJobPlan, jobs: Sequence[ObservedJob], *, now: float) -> bool:
    """Whether a pod of the run does not start, as without its ConfigMap; those are not watched, nor may be read."""
    if making.status is None or making.status.outcome != "Running":
        return False
    since = next((job.starting_since for job in jobs if job.name == making.status.name), None)
    return since is not None and now - since > STARTING_SECONDS


def failure_of(job: ObservedJob | None) -> tuple[str, str] | None:
    """Reason and message of a failed pruning run; for bad input they are those of the command line."""
    if job is None or job.outcome != "Failed":
        return None
    if isinstance(job.report, FailureReport):
        return (reasons.BAD_INPUT if job.report.kind == "BadInput" else reasons.MAKING_FAILED), job.report.one_line()
    died = f"Its last pod ended: {job.died}." if job.died else ""
    return reasons.MAKING_FAILED, _said(
        job.message or "The Job failed without a word.", died, "Look at the logs of its pods."
    )


def terminal_error(
    portfolio: ModelPortfolio,
    making: PruningJobPlan,
    jobs: Sequence[ObservedJob],
    revisions: Sequence[RevisionStatus],
    before: PortfolioStatus,
) -> tuple[str, str] | None:
    """Reason and message of an error that the user must correct."""
    pinned = portfolio.spec.pinned_revision
    known = [entry.number for entry in revisions]
    if pinned and pinned not in known and portfolio.spec.source is not None:
        listed = ", ".join(map(str, known)) or "none"
        return reasons.UNKNOWN_REVISION, f"spec.pinnedRevision = {pinned}: it is not kept; kept are: {listed}."
    status = making.status
    if status is None or status.outcome != "Failed":
        return None
    current = next((job for job in jobs if job.key == making.key), None)
    found = failure_of(current)
    if found is not None:
        return found
    earlier = before.last_failure
    if earlier is not None and earlier.message == status.message:
        return earlier.reason, earlier.message
    return reasons.MAKING_FAILED, status.message


def _status_of(job: ObservedJob, last: JobStatus | None, progress: ProgressLine | None) -> JobStatus:
    outcome, message = job.outcome, ""
    stage, percent = (last.stage, last.progress_percent) if last else ("", 0)
    if outcome == "Succeeded" and not isinstance(job.report, PublishedReport):
        # The manifest's digest is what endpoints trust; without it nothing can be served.
        outcome, message = "Failed", "The Job completed but did not say what it published."
    elif (failure := failure_of(job)) is not None:
        message = failure[1]
    elif outcome == "Running" and job.pieces:
        stage, percent = PIECES_STAGE, 100 * min(job.pieces_made, job.pieces) // job.pieces
        message = _said(f"{job.pieces_made} of {job.pieces} pieces are made.", job.waiting, _attempt(job))
    elif outcome == "Running" and job.waiting:
        stage, percent, message = WAITING_STAGE, 0, _said(job.waiting, _attempt(job))
    elif outcome == "Running" and progress is not None:
        stage, percent, message = progress.stage, progress.percent, progress.message
    elif outcome == "Running" and _attempt(job):
        message = _attempt(job)
    elif outcome == "Running" and last is not None and stage != WAITING_STAGE:
        message = last.message
    return JobStatus.model_validate(
        {
            "name": job.name,
            "specification_hash": job.key,
            "request": job.request,
            "outcome": outcome,
            "attempt": last.attempt if last else 1,
            "start_time": job.start_time or (last.start_time if last else None),
            "completion_time": job.completion_time if outcome in ENDED else None,
            "message": truncated(message),
            "stage": stage,
            "progress_percent": 100 if outcome == "Succeeded" else percent,
        }
    )


def _attempt(job: ObservedJob) -> str:
    """Message about a failed attempt while the next one runs."""
    return f"An attempt failed: {job.report.one_line()}" if isinstance(job.report, FailureReport) else ""


def _said(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _lost_pod(job: ObservedJob, *, now: float) -> str | None:
    """The pod on a lost node that blocks the Job.

    A Job with a pod failure policy replaces a pod only when that has ended, and on a node that does not
    answer it never does.
    """
    if job.outcome != "Running" or job.overdue is None or now - job.overdue[0] <= LOST_POD_SECONDS:
        return None
    return job.overdue[1]


def _wanted_suspension(job: ObservedJob, wanted: bool) -> bool | None:
    return wanted if job.outcome not in ENDED and job.suspend != wanted else None


def _published(job: ObservedJob, *, now: float) -> RevisionStatus | None:
    if job.outcome != "Succeeded" or not isinstance(job.report, PublishedReport):
        return None
    return RevisionStatus(
        number=job.report.revision,
        manifest_digest=job.report.manifest_digest,
        specification_hash=job.key,
        published_time=job.completion_time or time_text(now),
        variants=job.report.variants,
        splits=job.report.splits,
        measured_on=job.report.measured_on,
    )
