"""Reconciler of a ModelPortfolio that is being deleted: its finalizer, and the Job that deletes its revisions. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from edgefolio.specification.conditions import readable_time
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.specification.validation.tolerant import understood
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ENDED, observed_jobs
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot, owned
from edgefolio_operator.kube.event_recorder import Event
from edgefolio_operator.kube.stored import read_stored
from edgefolio_operator.ownership import repository_owner_name
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.reclaim_policy import blocked, has_finalizer, plan_reclaim
from edgefolio_operator.resources.pruning_job import Images
from edgefolio_operator.resources.repository_jobs import build_reclaim_job


def plan_deletion(
    snapshot: PortfolioSnapshot, *, images: Images, now: float, in_ending_namespace: bool = False
) -> ReconcilePlan | None:
    """The next step of deleting a portfolio; ``None`` without the operator's finalizer.

    ``in_ending_namespace``: the API server refused a write for that reason.
    """
    if not has_finalizer(snapshot.portfolio):
        return None
    snapshot = owned(snapshot)
    before = read_stored(PortfolioStatus, snapshot.portfolio.get("status")) or PortfolioStatus()
    try:
        portfolio = understood(ModelPortfolio, {**snapshot.portfolio, "status": None})
    except ValidationError:
        # No Job can be built from it. It published nothing in this shape, and must not be stuck.
        event = Event(
            reason=reasons.REPOSITORY_RETAINED,
            message="The spec cannot be read: what was published stays.",
            warning=True,
        )
        return ReconcilePlan(status=before, finalizer=False, events=(event,))
    if snapshot.repository_owner is not None:
        namespace = str(snapshot.portfolio["metadata"].get("namespace", ""))
        owner = repository_owner_name(snapshot.repository_owner, namespace=namespace)
        text = f"{owner} publishes to the same repository: what was published stays."
        return ReconcilePlan(
            status=before, finalizer=False, events=(Event(reason=reasons.REPOSITORY_RETAINED, message=text),)
        )
    if not _may_have_published(snapshot, before):
        return ReconcilePlan(status=before, finalizer=False)
    ends = in_ending_namespace or snapshot.namespace_is_ending
    uid = str(snapshot.portfolio["metadata"]["uid"])
    reclaim = observed_jobs(snapshot.jobs, snapshot.job_pods, labels.RECLAIM_COMPONENT)
    others = [
        job.name
        for component in (labels.JOB_COMPONENT, labels.CHECK_COMPONENT, labels.PROFILE_COMPONENT)
        for job in observed_jobs(snapshot.jobs, snapshot.job_pods, component)
        if job.outcome not in ENDED and not job.is_leaving
    ]
    plan = plan_reclaim(
        portfolio,
        before,
        deleted_at=readable_time(snapshot.portfolio["metadata"]["deletionTimestamp"]) or 0.0,
        reclaim=next((job for job in reclaim if job.key == uid), None),
        # A Job of an earlier portfolio of this name does not count.
        others=[*others, *(job.name for job in reclaim if job.key != uid)],
        busy_pods=[str(pod["metadata"]["name"]) for pod in snapshot.job_pods if _may_publish(pod)],
        namespace_ends=ends,
        now=now,
    )
    if plan.create and snapshot.conflicts:
        plan = replace(plan, status=blocked(plan.status, " ".join(snapshot.conflicts), now=now))
    events = []
    if plan.release:
        kept = plan.reason == reasons.REPOSITORY_RETAINED
        text = f"ModelPortfolio {portfolio.metadata.name}: {plan.message}"
        events.append(Event(reason=plan.reason, message=text, warning=kept and ends, about_namespace=ends))
    elif plan.status.last_failure != before.last_failure and plan.status.last_failure is not None:
        failure = plan.status.last_failure
        events.append(Event(reason=failure.reason, message=failure.message, warning=True))
    return ReconcilePlan(
        status=plan.status,
        apply=(build_reclaim_job(portfolio, uid=uid, images=images),) if plan.create else (),
        delete_jobs=plan.delete,
        finalizer=False if plan.release else None,
        events=tuple(events),
    )


def _may_have_published(snapshot: PortfolioSnapshot, before: PortfolioStatus) -> bool:
    """Whether a Job of this portfolio was ever made; without one there is nothing to delete."""
    stored = (snapshot.portfolio.get("status") or {}).get("job")
    return bool(stored or before.revisions or before.publishing_since or snapshot.jobs or snapshot.job_pods)


def _may_publish(pod: Any) -> bool:
    """Whether a pod that may publish has not ended."""
    component = (pod["metadata"].get("labels") or {}).get(labels.COMPONENT_LABEL)
    publishes = component in (labels.JOB_COMPONENT, labels.PROFILE_COMPONENT)
    return publishes and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
