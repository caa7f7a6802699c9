"""Deletion of published revisions with their portfolio (``reclaimPolicy: Delete``). Pure.

A finalizer keeps the portfolio until a Job has deleted what it published. It never blocks for good: the status says
what it waits for, ``reclaimPolicy: Retain`` releases the portfolio at once, and in a namespace that is being deleted,
where no Job can run, the finalizer goes and the revisions stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.contract.job_report import FailureReport
from edgefolio.specification.conditions import Failure, time_seconds, time_text, truncated, with_condition
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.uris import redacted
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ObservedJob
from edgefolio_operator.kube.event_recorder import Event
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.messages import listed

CONDITION = "Reclaiming"
#: Pods of pruning runs get this long to end, so that none publishes after what was published is deleted.
STOPPING_SECONDS = 90.0
#: Pause after a failed attempt, whose cause may be fixed meanwhile.
RETRY_SECONDS = 120.0
_REMEDY = (
    "Mend it (the Secret that repository.secretRef names is read anew each time), "
    "or set spec.repository.reclaimPolicy: Retain, which keeps the revisions and lets the portfolio go."
)


@dataclass(frozen=True, kw_only=True)
class ReclaimPlan:
    """The next step; ``release``: the finalizer is removed, for ``reason``."""

    status: PortfolioStatus
    create: bool = False
    delete: tuple[str, ...] = ()
    release: bool = False
    reason: str = ""
    message: str = ""


def has_finalizer(portfolio: Object) -> bool:
    """Whether the portfolio waits for its revisions to be deleted."""
    return labels.FINALIZER in (portfolio["metadata"].get("finalizers") or ())


def wanted_finalizer(
    portfolio: Object, spec_policy: str, *, may_have_published: bool, namespace_ends: bool
) -> bool | None:
    """Whether to add (True) or remove (False) the finalizer; ``None``: no change.

    It goes as soon as the namespace is being deleted, not only with the portfolio: Kubernetes deletes pods first, the
    operator's own among them if it lives there, and nobody would be left to take it off.
    """
    wanted = spec_policy == "Delete" and may_have_published and not namespace_ends
    return None if wanted == has_finalizer(portfolio) else wanted


def kept_in_ending_namespace(portfolio: ModelPortfolio) -> Event:
    """What is said when the revisions of ``portfolio`` stay because its namespace goes."""
    uri, model = portfolio.spec.repository.uri, portfolio.spec.serving.model_name
    text = f"The namespace is being deleted, where no Job can run: the revisions of {model!r} stay at {uri}."
    named = f"ModelPortfolio {portfolio.metadata.name}: {text}"
    return Event(reason=reasons.REPOSITORY_RETAINED, message=named, warning=True, about_namespace=True)


def plan_reclaim(
    portfolio: ModelPortfolio,
    before: PortfolioStatus,
    *,
    deleted_at: float,
    reclaim: ObservedJob | None,
    others: Sequence[str],
    busy_pods: Sequence[str],
    namespace_ends: bool,
    now: float,
) -> ReclaimPlan:
    """The next step of deleting the revisions of ``portfolio``.

    ``others`` are its other Jobs, ``busy_pods`` their pods that have not ended.
    """
    uri, model = redacted(portfolio.spec.repository.uri), portfolio.spec.serving.model_name
    mine = (reclaim.name,) if reclaim is not None else ()
    if portfolio.spec.repository.reclaim_policy == "Retain":
        message = f"The revisions of {model!r} stay at {uri}."
        return ReclaimPlan(
            status=before, delete=mine, release=True, reason=reasons.REPOSITORY_RETAINED, message=message
        )
    if namespace_ends:
        message = f"The namespace is being deleted, where no Job can run: the revisions of {model!r} stay at {uri}."
        return ReclaimPlan(status=before, release=True, reason=reasons.REPOSITORY_RETAINED, message=message)
    if others or (busy_pods and 0 <= now - deleted_at < STOPPING_SECONDS):
        waiting = "Waiting for the pods of its Jobs to end" + (f": {listed(busy_pods)}." if busy_pods else ".")
        return ReclaimPlan(status=_with_progress(before, reasons.STOPPING_JOBS, waiting, now=now), delete=tuple(others))
    if reclaim is None:
        text = f"A Job deletes the revisions of {model!r} at {uri}."
        return ReclaimPlan(status=_with_progress(before, reasons.DELETING_REVISIONS, text, now=now), create=True)
    if reclaim.outcome == "Succeeded":
        message = f"The revisions of {model!r} at {uri} are deleted."
        return ReclaimPlan(
            status=before, delete=mine, release=True, reason=reasons.REPOSITORY_RECLAIMED, message=message
        )
    if reclaim.outcome == "Failed":
        ended = time_seconds(reclaim.completion_time) if reclaim.completion_time else now
        text = f"The revisions of {model!r} at {uri} cannot be deleted. {_why(reclaim)} {_REMEDY}"
        status = _with_progress(before, reasons.RECLAIM_FAILED, text, now=now, failed=True)
        return ReclaimPlan(status=status, delete=mine if now - ended > RETRY_SECONDS else ())
    text = f"A Job deletes the revisions of {model!r} at {uri}. {reclaim.waiting}".strip()
    if reclaim.waiting:
        text += f" {_REMEDY}"
    return ReclaimPlan(status=_with_progress(before, reasons.DELETING_REVISIONS, text, now=now))


def blocked(status: PortfolioStatus, message: str, *, now: float) -> PortfolioStatus:
    """``status`` of a portfolio whose Job cannot be made, since somebody else has its name."""
    return _with_progress(status, reasons.RESOURCE_CONFLICT, f"{message} {_REMEDY}", now=now, failed=True)


def _why(job: ObservedJob) -> str:
    if isinstance(job.report, FailureReport):
        return job.report.one_line()
    return f"{job.message} {job.died and f'Its pod ended: {job.died}.'}".strip()


def _with_progress(
    before: PortfolioStatus, reason: str, message: str, *, now: float, failed: bool = False
) -> PortfolioStatus:
    """The status with the current wait; a failure stays until the end."""
    earlier = next((condition for condition in before.conditions if condition.type == CONDITION), None)
    if earlier is not None and earlier.reason == reasons.RECLAIM_FAILED and not failed:
        return before
    text = truncated(message)
    failure = before.last_failure
    if failed and (failure is None or failure.message != text):
        failure = Failure(location="spec.repository", reason=reason, message=text, time=time_text(now))
    conditions = with_condition(
        before.conditions, type=CONDITION, status="True", reason=reason, message=message, now=now
    )
    return before.model_copy(update={"conditions": conditions, "last_failure": failure})
