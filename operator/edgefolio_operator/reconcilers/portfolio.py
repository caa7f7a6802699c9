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
from edgefolio.specification.tolerant import understood
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ObservedJob, observed_jobs
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.endpoints.assignment import SAME_SWITCH_SECONDS, Assignment
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.endpoints.endpoint_counts import tally
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.objects import Document, annotations_of, owner_reference
from edgefolio_operator.kube.stored import read_stored
from edgefolio_operator.ownership import repository_owned
from edgefolio_operator.reconcilers.endpoint import assign_all, changed_documents, endpoints_of, stale_endpoints
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.reclaim_policy import wanted_finalizer
from edgefolio_operator.resources.daemonset import (
    build_access,
    build_daemon_set,
    build_service,
    service_url,
    serving_key,
)
from edgefolio_operator.resources.pruning_job import Images, build_job, build_specification
from edgefolio_operator.resources.repository_jobs import build_check_job
from edgefolio_operator.revisions.history import current_revision, kept_revisions
from edgefolio_operator.revisions.pruning_job import (
    MakingPlan,
    nothing_made,
    plan_making,
    terminal_error,
    unreadable_job,
)
from edgefolio_operator.revisions.repository_check import RepositoryCheckPlan, plan_repository_check
from edgefolio_operator.revisions.rollout import RolloutPlan, plan_rollout
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
    generation = int(snapshot.portfolio["metadata"].get("generation", 1))
    before = read_stored(PortfolioStatus, snapshot.portfolio.get("status")) or PortfolioStatus()
    try:
        portfolio = understood(ModelPortfolio, {**snapshot.portfolio, "status": None})
    except ValidationError as error:
        # Admitted by the CRD's rules, rejected by the models, which check more.
        return replace(_refused(error, before, generation, now), delete_endpoints=stale_endpoints(snapshot))
    owner = owner_reference(snapshot.portfolio)
    jobs = observed_jobs(snapshot.jobs, snapshot.job_pods, labels.JOB_COMPONENT)
    request = annotations_of(snapshot.portfolio).get(labels.MAKE_REQUESTED_ANNOTATION, "")[:128]
    making = _making(portfolio, snapshot, before, jobs=jobs, request=request, now=now)
    check = plan_repository_check(
        portfolio,
        uid=str(snapshot.portfolio["metadata"]["uid"]),
        request=request,
        last=before.check,
        jobs=observed_jobs(snapshot.jobs, snapshot.job_pods, labels.CHECK_COMPONENT),
        revisions=before.revisions,
        now=now,
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
        agents=agent_conditions(members, assignments, refused_orders=refused_orders or {}, epoch=epoch),
    )
    status = _status(findings, before, now=now)
    documents = _workload(portfolio, snapshot, owner=owner, images=images)
    if making.create:
        documents.append(build_specification(portfolio, key=making.key, owner=owner))
        documents.append(
            build_job(portfolio, key=making.key, owner=owner, images=images, request=request, pieces=making.pieces)
        )
    if check.create:
        documents.append(build_check_job(portfolio, name=check.create, key=check.key, owner=owner, images=images))
    documents += changed_documents(snapshot.portfolio, members, assignments)
    return ReconcilePlan(
        status=status,
        apply=tuple(documents),
        delete_jobs=(*making.delete, *check.delete),
        delete_daemon_set=None
        if portfolio.spec.serving.mode == "Managed" or snapshot.daemon_set is None
        else portfolio.metadata.name,
        delete_endpoints=stale_endpoints(snapshot),
        suspend_job=(making.status.name, making.suspend) if making.status and making.suspend is not None else None,
        finalizer=wanted_finalizer(
            snapshot.portfolio,
            # Another portfolio's revisions are not this one's to delete.
            portfolio.spec.repository.reclaim_policy if snapshot.repository_owner is None else "Retain",
            namespace_ends=snapshot.namespace_is_ending,
        ),
        events=(*events_of(before, status, members, assignments), *events_of_making(making)),
        states={each.spec.pod_name: each.state for each in assignments},
        decisions={each.spec.pod_name: each.decision for each in assignments if each.decision is not None},
        promises=promises,
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


def _workload(
    portfolio: ModelPortfolio, snapshot: PortfolioSnapshot, *, owner: Document, images: Images
) -> list[Document]:
    """DaemonSet, Service and access to apply, where they differ from the desired ones."""
    if portfolio.spec.serving.mode != "Managed":
        return []
    documents: list[Document] = []
    stored = snapshot.daemon_set
    service = build_service(portfolio, owner=owner, server_version=snapshot.server_version, stored=stored)
    if annotations_of(snapshot.service).get(labels.HASH_ANNOTATION) != annotations_of(service)[labels.HASH_ANNOTATION]:
        documents.append(service)
    if annotations_of(stored).get(labels.HASH_ANNOTATION) != serving_key(portfolio):
        documents += [*build_access(portfolio), build_daemon_set(portfolio, owner=owner, images=images, stored=stored)]
    return documents


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
    terminal = terminal_error(portfolio, making, found.jobs, found.revisions, before)
    if snapshot.repository_owner is not None:
        terminal = repository_owned(snapshot.repository_owner)
    facts = Facts(
        generation=generation,
        making=making.status is not None and making.status.outcome in ("Running", "Suspended"),
        revision=revision.number if revision is not None else 0,
        waits_for_others=portfolio.spec.source is None,
        terminal=terminal,
        repository=found.check.trouble,
        rollout=found.rollout.status,
        counts=figures.counts if revision is not None else None,
        endpoints_settled=not figures.starting,
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
        },
    )
    wrong = terminal or found.check.trouble
    managed = portfolio.spec.serving.mode == "Managed"
    return PortfolioStatus(
        observed_generation=generation,
        conditions=conditions_of(facts, before=before.conditions, now=now),
        current_revision=facts.revision,
        variant_count=len(revision.variants) if revision is not None else 0,
        revisions=found.revisions,
        job=making.status,
        check=found.check.status,
        rollout=found.rollout.status,
        endpoints=figures.counts,
        address=Address(url=service_url(portfolio, stored=snapshot.daemon_set)) if managed else None,
        last_switch_time=_last_switch_time(before.last_switch_time, figures.last_switch_at),
        last_failure=before.last_failure if wrong is None else _failure(*wrong, before=before.last_failure, now=now),
    )


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
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    terminal = reasons.INVALID_SPEC, truncated(f"{field}: {first['msg'].removeprefix('Value error, ')}")
    facts = Facts(
        generation=generation,
        revision=before.current_revision,
        terminal=terminal,
        counts=before.endpoints,
        informational={
            entry.type: (entry.status, entry.reason, entry.message)
            for entry in before.conditions
            if entry.type in (*INFORMATIONAL_CONDITIONS, *SECURITY_CONDITIONS, *AGENT_CONDITIONS)
        },
    )
    conditions = conditions_of(facts, before=before.conditions, now=now)
    return ReconcilePlan(status=before.model_copy(update={"observed_generation": generation, "conditions": conditions}))
