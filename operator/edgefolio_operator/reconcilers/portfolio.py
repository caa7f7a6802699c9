"""Reconciler of one ModelPortfolio: a snapshot in, the writes that bring it to the desired state out. Pure.

Level-based: it ignores events, and plans no write without a difference. Only the timers of decisions live in
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from pydantic import ValidationError

from edgefolio.decision.types import State
from edgefolio.specification.portfolio_status import PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.cluster_state.job_status import ObservedJob, observed_jobs
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot, owned
from edgefolio_operator.cluster_state.workload_status import status_of_pods
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.objects import Document, annotations_of, owner_reference
from edgefolio_operator.kube.stored import invalid_spec, read_portfolio, read_stored
from edgefolio_operator.reconcilers.endpoint import assign_all, changed_documents, endpoints_of, stale_endpoints
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.reclaim_policy import kept_in_ending_namespace, wanted_finalizer
from edgefolio_operator.resources.profile_job import build_profile_job
from edgefolio_operator.resources.pruning_job import Images, build_job, build_specification
from edgefolio_operator.resources.repository_jobs import build_check_job
from edgefolio_operator.resources.workload import workload_documents
from edgefolio_operator.revisions.history import current_revision, kept_revisions
from edgefolio_operator.revisions.profiling import ProfilingPlan, plan_profiling, replaced
from edgefolio_operator.revisions.pruning_job import (
    PruningJobPlan,
    lacks_its_file,
    nothing_made,
    plan_pruning_job,
    unreadable_job,
)
from edgefolio_operator.revisions.repository_check import RepositoryCheckPlan, plan_repository_check
from edgefolio_operator.revisions.rollout import RolloutPlan, plan_rollout
from edgefolio_operator.status.agent_conditions import agent_conditions
from edgefolio_operator.status.event_messages import events_of, events_of_pruning_job
from edgefolio_operator.status.portfolio_status import PortfolioFindings, portfolio_status, refused_status


def plan_portfolio(
    snapshot: PortfolioSnapshot,
    *,
    resources: ResourceView,
    images: Images,
    states: Mapping[str, State],
    epoch: int,
    now: float,
    refused_orders: Mapping[str, str] | None = None,
) -> ReconcilePlan:
    """The plan for one portfolio. Total for any stored resource.

    By endpoint: ``states`` are those of the last plan, ``refused_orders`` say why its orders were refused.
    """
    snapshot = owned(snapshot)
    generation = int(snapshot.portfolio["metadata"].get("generation", 1))
    before = read_stored(PortfolioStatus, snapshot.portfolio.get("status")) or PortfolioStatus()
    try:
        portfolio, job_fault = read_portfolio(snapshot.portfolio)
    except ValidationError as error:
        # Admitted by the CRD's rules, rejected by the models, which check more.
        refused = refused_status(invalid_spec(error), before, generation=generation, now=now)
        return ReconcilePlan(status=refused, delete_endpoints=stale_endpoints(snapshot))
    found = _findings(
        portfolio,
        snapshot,
        before,
        job_fault=job_fault,
        resources=resources,
        states=states,
        refused_orders=refused_orders or {},
        epoch=epoch,
        now=now,
    )
    making, assignments, ends = found.making, found.assignments, snapshot.namespace_is_ending
    status = portfolio_status(found, before, now=now)
    finalizer = wanted_finalizer(
        snapshot.portfolio,
        # Another portfolio's revisions are not this one's to delete.
        portfolio.spec.repository.reclaim_policy if snapshot.repository_owner is None else "Retain",
        may_have_published=making.status is not None or status.publishing_since is not None,
        namespace_ends=ends,
    )
    kept = [kept_in_ending_namespace(portfolio)] if finalizer is False and ends else []
    return ReconcilePlan(
        status=status,
        apply=() if ends else tuple(_documents(found, images=images, now=now)),
        delete_jobs=(*making.delete, *found.check.delete, *found.profiling.delete),
        delete_daemon_set=None
        if portfolio.spec.serving.mode == "Managed" or snapshot.daemon_set is None
        else portfolio.metadata.name,
        delete_endpoints=stale_endpoints(snapshot),
        suspend_job=(making.status.name, making.suspend) if making.status and making.suspend is not None else None,
        finalizer=finalizer,
        events=(*events_of(before, status, found.members, assignments), *events_of_pruning_job(making), *kept),
        states={each.spec.pod_name: each.state for each in assignments},
        decisions={each.spec.pod_name: each.decision for each in assignments if each.decision is not None},
        promises=found.promises,
        suspects=found.workload.suspects,
    )


def _findings(
    portfolio: ModelPortfolio,
    snapshot: PortfolioSnapshot,
    before: PortfolioStatus,
    *,
    job_fault: tuple[str, str] | None,
    resources: ResourceView,
    states: Mapping[str, State],
    refused_orders: Mapping[str, str],
    epoch: int,
    now: float,
) -> PortfolioFindings:
    """What is made, rolled out and assigned now."""
    jobs = observed_jobs(snapshot.jobs, snapshot.job_pods, labels.JOB_COMPONENT)
    request = annotations_of(snapshot.portfolio).get(labels.MAKE_REQUESTED_ANNOTATION, "")[:128]
    # In a namespace that is being deleted nothing can be made any more, and what is asked for is refused.
    ends = snapshot.namespace_is_ending
    making = (
        nothing_made(before.job, jobs)
        if job_fault is not None or ends
        else _making(portfolio, snapshot, before, jobs=jobs, request=request, now=now)
    )
    check = (
        RepositoryCheckPlan(status=before.check)
        if ends
        else plan_repository_check(
            portfolio,
            uid=str(snapshot.portfolio["metadata"]["uid"]),
            request=request,
            last=before.check,
            jobs=observed_jobs(snapshot.jobs, snapshot.job_pods, labels.CHECK_COMPONENT),
            revisions=before.revisions,
            now=now,
        )
    )
    revisions = kept_revisions(portfolio, before.revisions, making.revision or check.revision)
    revision = current_revision(portfolio, revisions)
    profiling = _profiling(portfolio, snapshot, revision, now=now)
    revisions, revision = replaced(revisions, profiling), profiling.revision or revision
    members = endpoints_of(snapshot, adopts=portfolio.spec.serving.mode == "Adopt")
    rollout = _rollout(portfolio, snapshot, revision, revisions, members, before, now)
    assignments, promises = assign_all(
        portfolio,
        members,
        revisions=revisions,
        assigned_revisions=rollout.assignments,
        states=states,
        resources=resources,
        epoch=epoch,
        now=now,
    )
    return PortfolioFindings(
        snapshot=snapshot,
        portfolio=portfolio,
        making=making,
        check=check,
        jobs=jobs,
        revisions=revisions,
        revision=revision,
        profiling=profiling,
        rollout=rollout,
        members=members,
        assignments=assignments,
        resources=resources,
        workload=status_of_pods(snapshot),
        job_fault=job_fault,
        request=request,
        promises=promises,
        agents=agent_conditions(members, assignments, refused_orders=refused_orders, epoch=epoch),
    )


def _documents(found: PortfolioFindings, *, images: Images, now: float) -> list[Document]:
    """The owned objects to write."""
    snapshot, portfolio, making, check = found.snapshot, found.portfolio, found.making, found.check
    owner = owner_reference(snapshot.portfolio)
    documents = workload_documents(
        portfolio,
        owner=owner,
        images=images,
        server_version=snapshot.server_version,
        service=snapshot.service,
        daemon_set=snapshot.daemon_set,
        missing=snapshot.missing_access,
        drifted=snapshot.drifted,
    )
    if making.create:
        documents.append(build_specification(portfolio, key=making.key, owner=owner))
        documents.append(
            build_job(
                portfolio, key=making.key, owner=owner, images=images, request=found.request, pieces=making.pieces
            )
        )
    elif lacks_its_file(making, found.jobs, now=now + snapshot.api_clock_offset):
        documents.append(build_specification(portfolio, key=making.key, owner=owner))
    if check.create:
        documents.append(build_check_job(portfolio, name=check.create, key=check.key, owner=owner, images=images))
    if found.revision is not None:
        documents += [
            build_profile_job(portfolio, each, revision=found.revision, owner=owner, images=images)
            for each in found.profiling.create
        ]
    return documents + changed_documents(snapshot.portfolio, found.members, found.assignments)


def _making(
    portfolio: ModelPortfolio,
    snapshot: PortfolioSnapshot,
    before: PortfolioStatus,
    *,
    jobs: Sequence[ObservedJob],
    request: str,
    now: float,
) -> PruningJobPlan:
    if snapshot.repository_owner is not None:
        return nothing_made(before.job, jobs)
    plan = partial(
        plan_pruning_job,
        portfolio,
        request=request,
        jobs=jobs,
        now=now,
        progress=snapshot.progress,
        api_clock_offset=snapshot.api_clock_offset,
    )
    planned = plan(last=before.job)
    if not planned.create or before.job is not None:
        return planned
    stored = (snapshot.portfolio.get("status") or {}).get("job")
    last = unreadable_job(stored, planned, before.revisions)
    return planned if last is None else plan(last=last)


def _profiling(
    portfolio: ModelPortfolio, snapshot: PortfolioSnapshot, revision: RevisionStatus | None, *, now: float
) -> ProfilingPlan:
    if snapshot.namespace_is_ending or snapshot.repository_owner is not None:
        return ProfilingPlan(revision=revision)
    jobs = observed_jobs(snapshot.jobs, snapshot.job_pods, labels.PROFILE_COMPONENT)
    return plan_profiling(portfolio, revision=revision, jobs=jobs, now=now)


def _rollout(
    portfolio: ModelPortfolio,
    snapshot: PortfolioSnapshot,
    revision: RevisionStatus | None,
    revisions: Sequence[RevisionStatus],
    members: Sequence[Endpoint],
    before: PortfolioStatus,
    now: float,
) -> RolloutPlan:
    if revision is None:
        return RolloutPlan(assignments={}, status=before.rollout)
    return plan_rollout(
        target=revision.number,
        members=[endpoint.member(now=now) for endpoint in members],
        last=before.rollout,
        settings=portfolio.spec.rollout,
        known_revisions=frozenset(entry.number for entry in revisions),
        now=now,
        request=annotations_of(snapshot.portfolio).get(labels.ROLLOUT_REQUESTED_ANNOTATION, "")[:128],
        approved=annotations_of(snapshot.portfolio).get(labels.APPROVE_REVISION_ANNOTATION, ""),
    )
