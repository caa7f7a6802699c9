"""Which Job should exist for a portfolio, and what became of it. Pure: status and Jobs in, a plan out.

One making is told from another by its key (what it is made from, and the user's request). The outcome is kept in the
status under that key: a Job that its time to live removed is not run again, one that somebody deleted half-way is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefolio.job_report import FailureReport, PublishedReport, report_of_message
from edgefolio.specification.conditions import time_text
from edgefolio.specification.portfolio_status import JobStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import names
from edgefolio_operator.jobs import CONTAINER, making_key

Object = Mapping[str, Any]

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class ObservedJob:
    """A Job of this portfolio, and what its pods said last."""

    name: str
    key: str
    request: str
    outcome: str
    suspend: bool
    start_time: str | None
    completion_time: str | None
    report: PublishedReport | FailureReport | None
    message: str


@dataclass(frozen=True, kw_only=True)
class MakingPlan:
    """What is to be done; ``status`` is the new ``status.job``, ``revision`` what was just found published."""

    status: JobStatus | None = None
    create: bool = False
    delete: tuple[str, ...] = ()
    suspend: bool | None = None
    revision: RevisionStatus | None = None
    key: str = ""
    request: str = ""


def observed_job(job: Object, pods: Sequence[Object]) -> ObservedJob:
    """``job`` as the API server has it, with the termination messages of its ``pods``, oldest first."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", ()) if entry.get("status") == "True"}
    if "Complete" in conditions or "SuccessCriteriaMet" in conditions:
        outcome = "Succeeded"
    elif "Failed" in conditions or "FailureTarget" in conditions:
        outcome = "Failed"
    else:
        outcome = "Suspended" if spec.get("suspend") else "Running"
    messages = [message for pod in pods for message in _termination_messages(pod)]
    reports = [report for message in messages if (report := report_of_message(message)) is not None]
    ended = conditions.get("Failed") or conditions.get("FailureTarget") or {}
    annotations = metadata.get("annotations", {})
    return ObservedJob(
        name=metadata["name"],
        key=annotations.get(names.HASH_ANNOTATION, ""),
        request=annotations.get(names.REQUEST_ANNOTATION, ""),
        outcome=outcome,
        suspend=bool(spec.get("suspend")),
        start_time=status.get("startTime"),
        completion_time=status.get("completionTime") or ended.get("lastTransitionTime"),
        report=reports[-1] if reports else None,
        message=str(ended.get("message", "")),
    )


def plan_making(
    portfolio: ModelPortfolio,
    *,
    request: str,
    last: JobStatus | None,
    jobs: Sequence[ObservedJob],
    now: float,
) -> MakingPlan:
    """The Job that should exist and what becomes of the others. ``last`` is ``status.job`` as it was left."""
    if portfolio.spec.source is None:
        return MakingPlan(delete=tuple(job.name for job in jobs))
    key = making_key(portfolio.spec, request=request)
    others = tuple(job.name for job in jobs if job.key != key)
    same = last is not None and last.specification_hash == key
    if last is not None and same and last.outcome in _ENDED:
        return MakingPlan(status=last, delete=others, key=key, request=request)
    current = next((job for job in jobs if job.key == key), None)
    if current is None:
        attempt = last.attempt + 1 if last is not None and same else 1
        status = JobStatus(
            name=names.job_name(portfolio.metadata.name, key),
            specification_hash=key,
            request=request,
            outcome="Suspended" if portfolio.spec.job.suspend else "Running",
            attempt=attempt,
            start_time=time_text(now),
        )
        return MakingPlan(status=status, create=True, delete=others, key=key, request=request)
    return MakingPlan(
        status=_status_of(current, last if same else None),
        delete=others,
        suspend=_wanted_suspension(current, portfolio.spec.job.suspend),
        revision=_published(current, now=now),
        key=key,
        request=request,
    )


def nothing_made(last: JobStatus | None, jobs: Sequence[ObservedJob]) -> MakingPlan:
    """The plan of a portfolio that may not make: no Job; what became of the last one stays known."""
    return MakingPlan(
        status=last if last is not None and last.outcome in _ENDED else None, delete=tuple(job.name for job in jobs)
    )


def failure_of(job: ObservedJob | None) -> tuple[str, str] | None:
    """Reason and message of a failed making: the user's own mistake in the words the command line would use."""
    if job is None or job.outcome != "Failed":
        return None
    if isinstance(job.report, FailureReport):
        return ("BadInput" if job.report.kind == "BadInput" else "MakingFailed"), job.report.one_line()
    return "MakingFailed", job.message or "The Job failed without a word; look at the logs of its pods."


def _status_of(job: ObservedJob, last: JobStatus | None) -> JobStatus:
    outcome, message = job.outcome, ""
    if outcome == "Succeeded" and not isinstance(job.report, PublishedReport):
        # The manifest's digest is what endpoints trust; without it nothing can be served.
        outcome, message = "Failed", "The Job completed but did not say what it published."
    elif (failure := failure_of(job)) is not None:
        message = failure[1]
    return JobStatus.model_validate(
        {
            "name": job.name,
            "specification_hash": job.key,
            "request": job.request,
            "outcome": outcome,
            "attempt": last.attempt if last else 1,
            "start_time": job.start_time or (last.start_time if last else None),
            "completion_time": job.completion_time if outcome in _ENDED else None,
            "message": message[:1024],
            "stage": last.stage if last else "",
            "progress_percent": 100 if outcome == "Succeeded" else (last.progress_percent if last else 0),
        }
    )


def _wanted_suspension(job: ObservedJob, wanted: bool) -> bool | None:
    return wanted if job.outcome not in _ENDED and job.suspend != wanted else None


def _published(job: ObservedJob, *, now: float) -> RevisionStatus | None:
    if job.outcome != "Succeeded" or not isinstance(job.report, PublishedReport):
        return None
    return RevisionStatus(
        number=job.report.revision,
        manifest_digest=job.report.manifest_digest,
        specification_hash=job.key,
        published_time=job.completion_time or time_text(now),
        variants=job.report.variants,
    )


def _termination_messages(pod: Object) -> list[str]:
    return [
        str(state["terminated"]["message"])
        for container in pod.get("status", {}).get("containerStatuses", ())
        if container.get("name") == CONTAINER
        for state in (container.get("lastState", {}), container.get("state", {}))
        if state.get("terminated", {}).get("message")
    ]
