"""One cycle for one portfolio: everything that is known in, everything that is to be written out. Pure.

Level-based: the cycle knows nothing of events. It looks at what is, says what should be, and leaves out what is so
already; the caller writes the rest. Only the timers of the decision live in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from edgefolio.decision.types import Decision, State
from edgefolio.job_report import ProgressLine
from edgefolio.specification.conditions import Failure, time_text
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import Address, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio_operator import names
from edgefolio_operator.capabilities import Capabilities
from edgefolio_operator.conditions import Facts, conditions_of
from edgefolio_operator.counting import Endpoint, tally
from edgefolio_operator.following import FollowingPlan, plan_following
from edgefolio_operator.jobs import Images, build_job, build_specification
from edgefolio_operator.keeping import Kept, Surroundings, annotations_of, keep
from edgefolio_operator.making import MakingPlan, plan_making, terminal_error
from edgefolio_operator.objectives import Issue
from edgefolio_operator.observed_jobs import ObservedJob, observed_jobs
from edgefolio_operator.reclaiming import wanted_finalizer
from edgefolio_operator.repository_jobs import build_check_job
from edgefolio_operator.revisions import current_revision, kept_revisions
from edgefolio_operator.rollout import RolloutPlan, plan_rollout
from edgefolio_operator.workloads import (
    build_access,
    build_daemon_set,
    build_service,
    service_url,
    serving_key,
)

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class World:
    """What the API server holds of one portfolio."""

    portfolio: Object
    jobs: Sequence[Object] = ()
    job_pods: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    nodes: Mapping[str, Object] | None = None
    namespace: Object | None = None
    endpoints: Sequence[Object] = ()
    daemon_set: Object | None = None
    service: Object | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)
    progress: Mapping[str, ProgressLine] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something to tell people about the portfolio, once; about an endpoint of it where one is named."""

    reason: str
    message: str
    warning: bool = False
    about_namespace: bool = False
    endpoint: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be written, and what to remember until the next cycle."""

    status: PortfolioStatus
    apply: tuple[dict[str, Any], ...] = ()
    delete_jobs: tuple[str, ...] = ()
    delete_daemon_set: str | None = None
    suspend_job: tuple[str, bool] | None = None
    finalizer: bool | None = None
    events: tuple[Event, ...] = ()
    states: Mapping[str, State] | None = None
    decisions: Mapping[str, Decision] | None = None


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
    jobs = observed_jobs(world.jobs, world.job_pods, names.JOB_COMPONENT)
    request = annotations_of(world.portfolio).get(names.MAKE_REQUESTED_ANNOTATION, "")[:128]
    making = plan_making(portfolio, request=request, last=before.job, jobs=jobs, now=now, progress=world.progress)
    following = plan_following(
        portfolio,
        uid=str(world.portfolio["metadata"]["uid"]),
        request=request,
        last=before.check,
        jobs=observed_jobs(world.jobs, world.job_pods, names.CHECK_COMPONENT),
        revisions=before.revisions,
        now=now,
    )
    revisions = kept_revisions(portfolio, before.revisions, making.revision or following.revision)
    revision = current_revision(portfolio, revisions)
    members = _endpoints(world)
    rollout = _rollout(portfolio, revision, revisions, members, before, now)
    kept = _kept(portfolio, members, revisions, rollout, states, epoch, now)
    status = _status(
        portfolio, generation, before, making, following, jobs, revisions, revision, rollout, members, kept, now
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
        _endpoint_document(endpoint, decided.spec, world.portfolio)
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
        suspend_job=(making.status.name, making.suspend) if making.status and making.suspend is not None else None,
        finalizer=wanted_finalizer(
            world.portfolio, portfolio.spec.repository.reclaim_policy, namespace_ends=namespace_ends(world)
        ),
        events=(*_events(before, status, members, kept), *_events_of(making)),
        states={decided.spec.pod_name: decided.state for decided in kept},
        decisions={decided.spec.pod_name: decided.decision for decided in kept if decided.decision is not None},
    )


def owner_reference(owner: Object) -> dict[str, Any]:
    """``owner`` as the controller of something; it goes when the owner goes."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _workload(
    portfolio: ModelPortfolio, world: World, *, owner: dict[str, Any], images: Images
) -> list[dict[str, Any]]:
    """What runs Triton and leads clients there, unless it is as it should be."""
    if portfolio.spec.serving.mode != "Managed":
        return []
    documents: list[dict[str, Any]] = []
    service = build_service(portfolio, owner=owner, capabilities=world.capabilities)
    if annotations_of(world.service).get(names.HASH_ANNOTATION) != annotations_of(service)[names.HASH_ANNOTATION]:
        documents.append(service)
    if annotations_of(world.daemon_set).get(names.HASH_ANNOTATION) != serving_key(portfolio):
        documents += [*build_access(portfolio), build_daemon_set(portfolio, owner=owner, images=images)]
    return documents


def _endpoints(world: World) -> list[Endpoint]:
    """The endpoint of every pod that has a node, by name; what cannot be read counts as not written."""
    stored = {entry["metadata"]["name"]: entry for entry in world.endpoints}
    found = []
    for pod in sorted(world.pods, key=lambda pod: str(pod["metadata"]["name"])):
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if not pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp") or ended:
            continue
        node_name = pod["spec"]["nodeName"]
        node = None if world.nodes is None else world.nodes.get(node_name, {"metadata": {"name": node_name}})
        entry = stored.get(pod["metadata"]["name"], {})
        found.append(
            Endpoint(
                surroundings=Surroundings(pod=pod, node=node, namespace=world.namespace),
                spec=parsed(EndpointSpecification, entry.get("spec")),
                status=parsed(EndpointStatus, entry.get("status")) or EndpointStatus(),
            )
        )
    return found


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


def _kept(
    portfolio: ModelPortfolio,
    members: Sequence[Endpoint],
    revisions: Sequence[RevisionStatus],
    rollout: RolloutPlan,
    states: Mapping[str, State],
    epoch: int,
    now: float,
) -> list[Kept]:
    by_number = {entry.number: entry for entry in revisions}
    return [
        keep(
            portfolio,
            endpoint.surroundings,
            revision=by_number.get(rollout.assignments.get(endpoint.surroundings.pod_name, 0)),
            current=endpoint.spec,
            status=endpoint.status,
            memory=states.get(endpoint.surroundings.pod_name),
            epoch=epoch,
            now=now,
        )
        for endpoint in members
    ]


def _status(
    portfolio: ModelPortfolio,
    generation: int,
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
    terminal = terminal_error(portfolio, making, jobs, revisions, before)
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
        issues=_told_once(issue for decided in kept for issue in decided.issues),
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


def _endpoint_document(endpoint: Endpoint, spec: EndpointSpecification, portfolio: Object) -> dict[str, Any]:
    pod = endpoint.surroundings.pod
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelEndpoint",
        "metadata": {
            "name": pod["metadata"]["name"],
            "namespace": portfolio["metadata"]["namespace"],
            "labels": names.labels(portfolio["metadata"]["name"], component=names.ENDPOINT_COMPONENT),
            "ownerReferences": [owner_reference({"apiVersion": "v1", "kind": "Pod", **pod})],
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def _events(
    before: PortfolioStatus, after: PortfolioStatus, members: Sequence[Endpoint], kept: Sequence[Kept]
) -> tuple[Event, ...]:
    """One event for each change that people ask about: revisions, rollouts, failures, switches."""
    events = []
    known = {entry.number for entry in before.revisions}
    for entry in after.revisions:
        if entry.number not in known:
            text = f"Revision {entry.number} with {len(entry.variants)} variants is published."
            events.append(Event(reason="Published", message=text))
    old, new = before.rollout, after.rollout
    if new is not None and (old is None or (old.revision, old.phase) != (new.revision, new.phase)):
        warning = new.phase in ("RolledBack", "Paused")
        message = new.message or f"The rollout of revision {new.revision} is {new.phase.lower()}."
        events.append(Event(reason=f"Rollout{new.phase}", message=message, warning=warning))
    if after.last_failure != before.last_failure and after.last_failure is not None:
        events.append(Event(reason=after.last_failure.reason, message=after.last_failure.message, warning=True))
    for endpoint, decided in zip(members, kept, strict=True):
        told = endpoint.spec.target_variant if endpoint.spec is not None else None
        if told is not None and decided.spec.target_variant not in (None, told):
            text = f"{decided.spec.pod_name}: {told} -> {decided.spec.target_variant}. {decided.spec.message}"
            reason = decided.spec.reason or "Switch"
            events.append(Event(reason=reason, message=text[:1024], endpoint=decided.spec.pod_name))
    return tuple(events)


def _events_of(making: MakingPlan) -> tuple[Event, ...]:
    if not making.lost:
        return ()
    text = f"The node of pod {making.lost} does not answer; the Job is run again, and goes on where its work is kept."
    return (Event(reason="PodLost", message=text, warning=True),)


def _told_once(issues: Any) -> tuple[str, ...]:
    found: dict[str, None] = dict.fromkeys(issue.message for issue in issues if isinstance(issue, Issue))
    return tuple(found)


def _refused(error: ValidationError, before: PortfolioStatus, generation: int, now: float) -> Plan:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    terminal = "InvalidSpec", f"{field}: {first['msg'].removeprefix('Value error, ')}"[:1024]
    facts = Facts(generation=generation, revision=before.current_revision, terminal=terminal, counts=before.endpoints)
    conditions = conditions_of(facts, before=before.conditions, now=now)
    return Plan(status=before.model_copy(update={"observed_generation": generation, "conditions": conditions}))


def namespace_ends(world: World) -> bool:
    """Whether the portfolio's namespace is being deleted, as far as may be read."""
    return bool((world.namespace or {}).get("metadata", {}).get("deletionTimestamp"))


def parsed(model: Any, document: Any) -> Any:
    """``document`` as ``model``; ``None`` where it is absent or from a world that this version does not know."""
    if not document:
        return None
    try:
        return model.model_validate(document)
    except ValidationError:
        return None
