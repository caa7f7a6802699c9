"""One cycle for one portfolio: everything that is known in, everything that is to be written out. Pure.

Level-based: the cycle knows nothing of events. It looks at what is, says what should be, and leaves out what is so
already; the caller writes the rest. Only the timers of the decision live in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from edgefolio.decision.types import State
from edgefolio.specification.conditions import Failure, time_text
from edgefolio.specification.portfolio_status import Address, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.cluster_state.job_status import ObservedJob, observed_jobs
from edgefolio_operator.cluster_state.snapshot import (
    Plan,
    World,
    endpoint_document,
    endpoints_of,
    left_behind,
    namespace_ends,
    owner_reference,
    parsed,
)
from edgefolio_operator.endpoints.endpoint_counts import Endpoint, tally
from edgefolio_operator.endpoints.facts import decide_all
from edgefolio_operator.ownership import repository_owned
from edgefolio_operator.reconcilers.endpoint import Kept, annotations_of
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
from edgefolio_operator.revisions.pruning_job import MakingPlan, nothing_made, plan_making, terminal_error
from edgefolio_operator.revisions.repository_check import FollowingPlan, plan_following
from edgefolio_operator.revisions.rollout import RolloutPlan, plan_rollout
from edgefolio_operator.status.conditions import Facts, conditions_of
from edgefolio_operator.status.event_messages import events_of, events_of_making
from edgefolio_operator.status.informational_conditions import ASPECTS, OVERRIDES_IGNORED, aspects_of


def reconcile(world: World, *, images: Images, states: Mapping[str, State], epoch: int, now: float) -> Plan:
    """The plan for one portfolio. ``states`` are those of the last plan, by endpoint. Total for any stored resource."""
    generation = int(world.portfolio["metadata"].get("generation", 1))
    before = parsed(PortfolioStatus, world.portfolio.get("status")) or PortfolioStatus()
    try:
        portfolio = ModelPortfolio.model_validate({**world.portfolio, "status": None})
    except ValidationError as error:
        # The API server's rules let it through, the models do not: a value that only they can judge.
        return _refused(error, before, generation, now)
    owner = owner_reference(world.portfolio)
    jobs = observed_jobs(world.jobs, world.job_pods, labels.JOB_COMPONENT)
    request = annotations_of(world.portfolio).get(labels.MAKE_REQUESTED_ANNOTATION, "")[:128]
    making = (
        plan_making(portfolio, request=request, last=before.job, jobs=jobs, now=now, progress=world.progress)
        if world.repository_owner is None
        else nothing_made(before.job, jobs)
    )
    following = plan_following(
        portfolio,
        uid=str(world.portfolio["metadata"]["uid"]),
        request=request,
        last=before.check,
        jobs=observed_jobs(world.jobs, world.job_pods, labels.CHECK_COMPONENT),
        revisions=before.revisions,
        now=now,
    )
    revisions = kept_revisions(portfolio, before.revisions, making.revision or following.revision)
    revision = current_revision(portfolio, revisions)
    members = endpoints_of(world, portfolio)
    rollout = _rollout(portfolio, revision, revisions, members, before, now)
    kept, promises = decide_all(
        portfolio,
        members,
        revisions=revisions,
        assignments=rollout.assignments,
        states=states,
        sight=world.sight,
        epoch=epoch,
        now=now,
    )
    status = _status(
        world, portfolio, before, making, following, jobs, revisions, revision, rollout, members, kept, now
    )
    documents = _workload(portfolio, world, owner=owner, images=images)
    if making.create:
        documents.append(build_specification(portfolio, key=making.key, owner=owner))
        documents.append(
            build_job(portfolio, key=making.key, owner=owner, images=images, request=request, pieces=making.pieces)
        )
    if following.create:
        documents.append(
            build_check_job(portfolio, name=following.create, key=following.key, owner=owner, images=images)
        )
    documents += [
        endpoint_document(endpoint, decided.spec, world.portfolio)
        for endpoint, decided in zip(members, kept, strict=True)
        if decided.spec != endpoint.spec
    ]
    return Plan(
        status=status,
        apply=tuple(documents),
        delete_jobs=(*making.delete, *following.delete),
        delete_daemon_set=None
        if portfolio.spec.serving.mode == "Managed" or world.daemon_set is None
        else portfolio.metadata.name,
        delete_endpoints=left_behind(world),
        suspend_job=(making.status.name, making.suspend) if making.status and making.suspend is not None else None,
        finalizer=wanted_finalizer(
            world.portfolio,
            # What another one makes is not this one's to delete.
            portfolio.spec.repository.reclaim_policy if world.repository_owner is None else "Retain",
            namespace_ends=namespace_ends(world),
        ),
        events=(*events_of(before, status, members, kept), *events_of_making(making)),
        states={decided.spec.pod_name: decided.state for decided in kept},
        decisions={decided.spec.pod_name: decided.decision for decided in kept if decided.decision is not None},
        promises=promises,
    )


def _workload(
    portfolio: ModelPortfolio, world: World, *, owner: dict[str, Any], images: Images
) -> list[dict[str, Any]]:
    """What runs Triton and leads clients there, unless it is as it should be."""
    if portfolio.spec.serving.mode != "Managed":
        return []
    documents: list[dict[str, Any]] = []
    service = build_service(portfolio, owner=owner, server_version=world.server_version)
    if annotations_of(world.service).get(labels.HASH_ANNOTATION) != annotations_of(service)[labels.HASH_ANNOTATION]:
        documents.append(service)
    if annotations_of(world.daemon_set).get(labels.HASH_ANNOTATION) != serving_key(portfolio):
        documents += [*build_access(portfolio), build_daemon_set(portfolio, owner=owner, images=images)]
    return documents


def _rollout(
    portfolio: ModelPortfolio,
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
    )


def _status(
    world: World,
    portfolio: ModelPortfolio,
    before: PortfolioStatus,
    making: MakingPlan,
    following: FollowingPlan,
    jobs: Sequence[ObservedJob],
    revisions: tuple[RevisionStatus, ...],
    revision: RevisionStatus | None,
    rollout: RolloutPlan,
    members: Sequence[Endpoint],
    kept: Sequence[Kept],
    now: float,
) -> PortfolioStatus:
    figures = tally(members, now=now)
    generation = int(world.portfolio["metadata"].get("generation", 1))
    terminal = terminal_error(portfolio, making, jobs, revisions, before)
    if world.repository_owner is not None:
        terminal = repository_owned(world.repository_owner)
    facts = Facts(
        generation=generation,
        making=making.status is not None and making.status.outcome in ("Running", "Suspended"),
        revision=revision.number if revision is not None else 0,
        waits_for_others=portfolio.spec.source is None,
        terminal=terminal,
        repository=following.trouble,
        rollout=rollout.status,
        counts=figures.counts if revision is not None else None,
        endpoints_settled=not figures.starting,
        objectives_unknown=figures.unknown,
        min_available_percent=portfolio.spec.serving.min_available_percent,
        issues=_issues(world, portfolio, kept),
        aspects=aspects_of(
            mode=portfolio.spec.serving.mode,
            pods=world.pods,
            nodes=[endpoint.surroundings.node_name for endpoint in members],
            reads_nodes=world.nodes is not None,
            lost_pods=world.lost_pods,
            sight=world.sight,
            now=now,
        ),
    )
    failure, wrong = before.last_failure, terminal or following.trouble
    if wrong is not None and (failure is None or (failure.reason, failure.message) != (wrong[0], wrong[1][:1024])):
        failure = Failure(location="", reason=wrong[0], message=wrong[1][:1024], time=time_text(now))
    return PortfolioStatus(
        observed_generation=generation,
        conditions=conditions_of(facts, before=before.conditions, now=now),
        current_revision=facts.revision,
        variant_count=len(revision.variants) if revision is not None else 0,
        revisions=revisions,
        job=making.status,
        check=following.status,
        rollout=rollout.status,
        endpoints=figures.counts,
        address=Address(url=service_url(portfolio)) if portfolio.spec.serving.mode == "Managed" else None,
        last_switch_time=figures.last_switch_time or before.last_switch_time,
        last_failure=failure,
    )


def _issues(world: World, portfolio: ModelPortfolio, kept: Sequence[Kept]) -> tuple[str, ...]:
    """What was asked and is not taken, each once."""
    found = dict.fromkeys(issue.message for decided in kept for issue in decided.issues)
    if world.nodes is None and portfolio.spec.objective_overrides:
        found[OVERRIDES_IGNORED] = None
    return tuple(found)


def _refused(error: ValidationError, before: PortfolioStatus, generation: int, now: float) -> Plan:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    terminal = "InvalidSpec", f"{field}: {first['msg'].removeprefix('Value error, ')}"[:1024]
    facts = Facts(
        generation=generation,
        revision=before.current_revision,
        terminal=terminal,
        counts=before.endpoints,
        aspects={
            entry.type: (entry.status, entry.reason, entry.message)
            for entry in before.conditions
            if entry.type in ASPECTS
        },
    )
    conditions = conditions_of(facts, before=before.conditions, now=now)
    return Plan(status=before.model_copy(update={"observed_generation": generation, "conditions": conditions}))
