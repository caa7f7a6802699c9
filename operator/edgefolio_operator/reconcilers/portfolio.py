"""Reconciler of one ModelPortfolio: a snapshot in, the writes that bring it to the desired state out. Pure.

Level-based: it ignores events, and plans no write without a difference. Only the timers of decisions live in
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pydantic import ValidationError

from edgefolio.decision.types import State
from edgefolio.specification.conditions import ConditionValue, Failure, time_seconds, time_text, truncated
from edgefolio.specification.portfolio_status import Address, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ObservedJob, observed_jobs
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot, owned
from edgefolio_operator.cluster_state.workload_status import WorkloadStatus, status_of_pods
from edgefolio_operator.endpoints.assignment import SAME_SWITCH_SECONDS, Assignment
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.endpoints.endpoint_counts import tally
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.objects import annotations_of, owner_reference
from edgefolio_operator.kube.stored import invalid_spec, read_portfolio, read_stored
from edgefolio_operator.ownership import repository_owned
from edgefolio_operator.reconcilers.endpoint import assign_all, changed_documents, endpoints_of, stale_endpoints
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.reclaim_policy import kept_in_ending_namespace, wanted_finalizer
from edgefolio_operator.resources.daemonset import service_url
from edgefolio_operator.resources.pruning_job import Images, build_job, build_specification
from edgefolio_operator.resources.repository_jobs import build_check_job
from edgefolio_operator.resources.workload import workload_documents
from edgefolio_operator.revisions.history import current_revision, first_publication, kept_revisions
from edgefolio_operator.revisions.pruning_job import (
    MakingPlan,
    lacks_its_file,
    nothing_made,
    plan_making,
    terminal_error,
    unreadable_job,
)
from edgefolio_operator.revisions.repository_check import RepositoryCheckPlan, plan_repository_check
from edgefolio_operator.revisions.rollout import RolloutPlan, plan_rollout
from edgefolio_operator.status import repository_condition
from edgefolio_operator.status.agent_conditions import AGENT_CONDITIONS, agent_conditions
from edgefolio_operator.status.conditions import Facts, conditions_of
from edgefolio_operator.status.event_messages import events_of, events_of_making
from edgefolio_operator.status.informational_conditions import (
    INFORMATIONAL_CONDITIONS,
    OVERRIDES_IGNORED,
    informational_conditions,
)
from edgefolio_operator.status.security_conditions import SECURITY_CONDITIONS, security_conditions


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
        return replace(_refused(error, before, generation, now), delete_endpoints=stale_endpoints(snapshot))
    owner = owner_reference(snapshot.portfolio)
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
    findings = _Findings(
        snapshot=snapshot,
        portfolio=portfolio,
        making=making,
        check=check,
        jobs=jobs,
        revisions=revisions,
        revision=revision,
        rollout=rollout,
        members=members,
        assignments=assignments,
        resources=resources,
        workload=status_of_pods(snapshot),
        job_fault=job_fault,
        agents=agent_conditions(members, assignments, refused_orders=refused_orders or {}, epoch=epoch),
    )
    status = _status(findings, before, now=now)
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
            build_job(portfolio, key=making.key, owner=owner, images=images, request=request, pieces=making.pieces)
        )
    elif lacks_its_file(making, jobs, now=now + snapshot.api_clock_offset):
        documents.append(build_specification(portfolio, key=making.key, owner=owner))
    if check.create:
        documents.append(build_check_job(portfolio, name=check.create, key=check.key, owner=owner, images=images))
    documents += changed_documents(snapshot.portfolio, members, assignments)
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
        apply=() if ends else tuple(documents),
        delete_jobs=(*making.delete, *check.delete),
        delete_daemon_set=None
        if portfolio.spec.serving.mode == "Managed" or snapshot.daemon_set is None
        else portfolio.metadata.name,
        delete_endpoints=stale_endpoints(snapshot),
        suspend_job=(making.status.name, making.suspend) if making.status and making.suspend is not None else None,
        finalizer=finalizer,
        events=(*events_of(before, status, members, assignments), *events_of_making(making), *kept),
        states={each.spec.pod_name: each.state for each in assignments},
        decisions={each.spec.pod_name: each.decision for each in assignments if each.decision is not None},
        promises=promises,
        suspects=findings.workload.suspects,
    )


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """The inputs of a portfolio's status."""

    snapshot: PortfolioSnapshot
    portfolio: ModelPortfolio
    making: MakingPlan
    check: RepositoryCheckPlan
    jobs: Sequence[ObservedJob]
    revisions: tuple[RevisionStatus, ...]
    revision: RevisionStatus | None
    rollout: RolloutPlan
    members: Sequence[Endpoint]
    assignments: Sequence[Assignment]
    resources: ResourceView
    workload: WorkloadStatus
    job_fault: tuple[str, str] | None
    agents: dict[str, ConditionValue]


def _making(
    portfolio: ModelPortfolio,
    snapshot: PortfolioSnapshot,
    before: PortfolioStatus,
    *,
    jobs: Sequence[ObservedJob],
    request: str,
    now: float,
) -> MakingPlan:
    if snapshot.repository_owner is not None:
        return nothing_made(before.job, jobs)
    plan = partial(
        plan_making,
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


def _status(found: _Findings, before: PortfolioStatus, *, now: float) -> PortfolioStatus:
    snapshot, portfolio, making, revision = found.snapshot, found.portfolio, found.making, found.revision
    figures = tally(found.members, now=now)
    generation = int(snapshot.portfolio["metadata"].get("generation", 1))
    terminal = found.job_fault or terminal_error(portfolio, making, found.jobs, found.revisions, before)
    if snapshot.repository_owner is not None:
        terminal = repository_owned(snapshot.repository_owner, namespace=portfolio.metadata.namespace or "")
    if snapshot.conflicts:
        terminal = reasons.RESOURCE_CONFLICT, truncated(" ".join(snapshot.conflicts))
    workload, absent = _absent(found, before, now=now)
    facts = Facts(
        generation=generation,
        making=making.status is not None and making.status.outcome in ("Running", "Suspended"),
        revision=revision.number if revision is not None else 0,
        waits_for_others=portfolio.spec.source is None,
        terminal=terminal,
        repository=found.check.trouble,
        rollout=found.rollout.status,
        counts=figures.counts if revision is not None else None,
        endpoints_settled=not figures.starting and not found.workload.missing,
        absent=absent,
        workload=workload,
        objectives_unknown=figures.unknown,
        min_available_percent=portfolio.spec.serving.min_available_percent,
        issues=_issues(found),
        informational={
            **informational_conditions(
                mode=portfolio.spec.serving.mode,
                pods=snapshot.pods,
                nodes=[endpoint.surroundings.node_name for endpoint in found.members],
                reads_nodes=snapshot.nodes is not None,
                lost_pods=snapshot.lost_pods,
                resources=found.resources,
                now=now,
            ),
            **security_conditions(portfolio, daemon_set=snapshot.daemon_set, members=found.members),
            **found.agents,
            repository_condition.CONDITION: repository_condition.repository_readable(found.members),
        },
    )
    wrong = terminal or found.check.trouble or workload
    return PortfolioStatus(
        observed_generation=generation,
        conditions=conditions_of(facts, before=before.conditions, now=now),
        current_revision=facts.revision,
        variant_count=len(revision.variants) if revision is not None else 0,
        revisions=found.revisions,
        publishing_since=before.publishing_since or first_publication(found.revisions),
        job=making.status,
        check=found.check.status,
        rollout=found.rollout.status,
        endpoints=figures.counts,
        address=_address(portfolio, snapshot),
        last_switch_time=_last_switch_time(before.last_switch_time, figures.last_switch_at),
        last_failure=before.last_failure if wrong is None else _failure(*wrong, before=before.last_failure, now=now),
    )


def _absent(found: _Findings, before: PortfolioStatus, *, now: float) -> tuple[tuple[str, str] | None, int]:
    """Why pods are missing or blocked, and how many of them no endpoint stands for yet."""
    waits = next((entry for entry in before.conditions if entry.type == "Reconciling"), None)
    is_starting = waits is not None and (waits.status, waits.reason) == ("True", reasons.ENDPOINTS_STARTING)
    return found.workload.absent(
        counted={endpoint.surroundings.pod_name for endpoint in found.members if endpoint.counts(now=now)},
        starting_seconds=now - time_seconds(waits.last_transition_time) if waits and is_starting else 0.0,
    )


def _address(portfolio: ModelPortfolio, snapshot: PortfolioSnapshot) -> Address | None:
    """Where clients reach the model; not a Service of somebody else under the portfolio's name."""
    is_taken = bool(snapshot.conflicts) and snapshot.service is None
    url = service_url(portfolio, stored=snapshot.daemon_set or snapshot.service)
    return Address(url=url) if portfolio.spec.serving.mode == "Managed" and not is_taken else None


def _last_switch_time(before: str | None, found: float | None) -> str | None:
    """The time of the last switch; the stored one where only its last seconds differ, which is no news."""
    if found is None or (before is not None and abs(time_seconds(before) - found) <= SAME_SWITCH_SECONDS):
        return before
    return time_text(found)


def _failure(reason: str, message: str, *, before: Failure | None, now: float) -> Failure:
    """The last failure, with the time when it was first seen."""
    text = truncated(message)
    if before is not None and (before.reason, before.message) == (reason, text):
        return before
    return Failure(location="", reason=reason, message=text, time=time_text(now))


def _issues(found: _Findings) -> tuple[str, ...]:
    """Rejected requests, each once."""
    messages = dict.fromkeys(issue.message for assignment in found.assignments for issue in assignment.issues)
    if found.snapshot.nodes is None and found.portfolio.spec.objective_overrides:
        messages[OVERRIDES_IGNORED] = None
    return tuple(messages)


def _refused(error: ValidationError, before: PortfolioStatus, generation: int, now: float) -> ReconcilePlan:
    terminal = invalid_spec(error)
    facts = Facts(
        generation=generation,
        revision=before.current_revision,
        terminal=terminal,
        counts=before.endpoints,
        informational={
            entry.type: (entry.status, entry.reason, entry.message)
            for entry in before.conditions
            if entry.type
            in (*INFORMATIONAL_CONDITIONS, *SECURITY_CONDITIONS, *AGENT_CONDITIONS, repository_condition.CONDITION)
        },
    )
    conditions = conditions_of(facts, before=before.conditions, now=now)
    return ReconcilePlan(status=before.model_copy(update={"observed_generation": generation, "conditions": conditions}))
