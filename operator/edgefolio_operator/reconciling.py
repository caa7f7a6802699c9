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
from edgefolio.specification.conditions import Failure, time_text
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import Address, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import API_VERSION, ModelPortfolio
from edgefolio_operator import names
from edgefolio_operator.aspects import ASPECTS, OVERRIDES_IGNORED, aspects_of
from edgefolio_operator.conditions import Facts, conditions_of
from edgefolio_operator.conflicts import PortfolioKey, repository_owned
from edgefolio_operator.counting import Endpoint, tally
from edgefolio_operator.deciding import Sight, decide_all, standing_promises
from edgefolio_operator.jobs import Images, build_job, build_specification
from edgefolio_operator.keeping import Kept, Surroundings, annotations_of
from edgefolio_operator.making import MakingPlan, ObservedJob, failure_of, nothing_made, observed_job, plan_making
from edgefolio_operator.preflight import incompatible
from edgefolio_operator.reservations import Promise
from edgefolio_operator.rollout import RolloutPlan, plan_rollout
from edgefolio_operator.telling import Event, events_of
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
    """What the API server holds of one portfolio.

    ``nodes`` is ``None`` where they may not be read. ``lost_pods`` are pods that an older portfolio has, with that one;
    ``repository_owner`` is the older portfolio that makes into this one's repository.
    """

    portfolio: Object
    jobs: Sequence[Object] = ()
    job_pods: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    nodes: Mapping[str, Object] | None = None
    namespace: Object | None = None
    endpoints: Sequence[Object] = ()
    daemon_set: Object | None = None
    sight: Sight = field(default_factory=Sight)
    lost_pods: Mapping[str, PortfolioKey] = field(default_factory=dict)
    repository_owner: PortfolioKey | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be written, and what to remember until the next cycle."""

    status: PortfolioStatus
    apply: tuple[dict[str, Any], ...] = ()
    delete_jobs: tuple[str, ...] = ()
    delete_daemon_set: str | None = None
    delete_endpoints: tuple[str, ...] = ()
    suspend_job: tuple[str, bool] | None = None
    events: tuple[Event, ...] = ()
    states: Mapping[str, State] | None = None
    decisions: Mapping[str, Decision] | None = None
    promises: tuple[Promise, ...] = ()


def reconcile(world: World, *, images: Images, states: Mapping[str, State], epoch: int, now: float) -> Plan:
    """The plan for one portfolio. ``states`` are those of the last plan, by endpoint. Total for any stored resource."""
    generation = int(world.portfolio["metadata"].get("generation", 1))
    before = _parsed(PortfolioStatus, world.portfolio.get("status")) or PortfolioStatus()
    try:
        portfolio = ModelPortfolio.model_validate({**world.portfolio, "status": None})
    except ValidationError as error:
        # The API server's rules let it through, the models do not: a value that only they can judge.
        return _refused(error, before, generation, now)
    owner = owner_reference(world.portfolio)
    jobs = tuple(observed_job(job, _pods_of(job, world.job_pods)) for job in world.jobs)
    request = annotations_of(world.portfolio).get(names.MAKE_REQUESTED_ANNOTATION, "")[:128]
    making = plan_making(portfolio, request=request, last=before.job, jobs=jobs, now=now)
    if world.repository_owner is not None:
        making = nothing_made(before.job, jobs)
    revisions = _revisions(before.revisions, making.revision, portfolio.spec.revision_history_limit)
    revision = _current(portfolio, revisions)
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
        world, portfolio, generation, before, making, jobs, revisions, revision, rollout, members, kept, now
    )
    documents = _workload(portfolio, world.daemon_set, owner=owner, images=images)
    if making.create:
        documents.append(build_specification(portfolio, key=making.key, owner=owner))
        documents.append(build_job(portfolio, key=making.key, owner=owner, images=images, request=request))
    documents += [
        _endpoint_document(endpoint, decided.spec, world.portfolio)
        for endpoint, decided in zip(members, kept, strict=True)
        if decided.spec != endpoint.spec
    ]
    return Plan(
        status=status,
        apply=tuple(documents),
        delete_jobs=making.delete,
        delete_daemon_set=None
        if portfolio.spec.serving.mode == "Managed" or world.daemon_set is None
        else portfolio.metadata.name,
        delete_endpoints=_left_behind(world),
        suspend_job=(making.status.name, making.suspend) if making.status and making.suspend is not None else None,
        events=events_of(before, status, members, kept),
        states={decided.spec.pod_name: decided.state for decided in kept},
        decisions={decided.spec.pod_name: decided.decision for decided in kept if decided.decision is not None},
        promises=promises,
    )


def promises_before(world: World, *, now: float) -> tuple[Promise, ...]:
    """What the endpoints of a portfolio hold before its first cycle."""
    status = _parsed(PortfolioStatus, world.portfolio.get("status")) or PortfolioStatus()
    namespace = str(world.portfolio["metadata"].get("namespace", ""))
    stored = [endpoint for endpoint in endpoints_of(world) if endpoint.spec is not None]
    return standing_promises(namespace, stored, revisions=status.revisions, now=now)


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
    portfolio: ModelPortfolio, daemon_set: Object | None, *, owner: dict[str, Any], images: Images
) -> list[dict[str, Any]]:
    """What runs Triton, unless it is as it should be."""
    if portfolio.spec.serving.mode != "Managed":
        return []
    if annotations_of(daemon_set).get(names.HASH_ANNOTATION) == serving_key(portfolio):
        return []
    return [
        *build_access(portfolio),
        build_service(portfolio, owner=owner),
        build_daemon_set(portfolio, owner=owner, images=images),
    ]


def endpoints_of(world: World, portfolio: ModelPortfolio | None = None) -> list[Endpoint]:
    """The endpoint of every pod that has a node, by name; what cannot be read counts as not written.

    Not of pods that an older portfolio has, nor of those that lack what the agent needs. One that was an endpoint stays
    one: a newer operator may ask for more than the pod had when it was taken.
    """
    stored = {entry["metadata"]["name"]: entry for entry in world.endpoints}
    adopts = portfolio is not None and portfolio.spec.serving.mode == "Adopt"
    unfit = incompatible(world.pods) if adopts else {}
    found = []
    for pod in sorted(world.pods, key=lambda pod: str(pod["metadata"]["name"])):
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if not pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp") or ended:
            continue
        name = str(pod["metadata"]["name"])
        if name in world.lost_pods or (name in unfit and name not in stored):
            continue
        node_name = pod["spec"]["nodeName"]
        node = None if world.nodes is None else world.nodes.get(node_name, {"metadata": {"name": node_name}})
        entry = stored.get(name, {})
        found.append(
            Endpoint(
                surroundings=Surroundings(pod=pod, node=node, namespace=world.namespace),
                spec=_parsed(EndpointSpecification, entry.get("spec")),
                status=_parsed(EndpointStatus, entry.get("status")) or EndpointStatus(),
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


def _status(
    world: World,
    portfolio: ModelPortfolio,
    generation: int,
    before: PortfolioStatus,
    making: MakingPlan,
    jobs: Sequence[ObservedJob],
    revisions: tuple[RevisionStatus, ...],
    revision: RevisionStatus | None,
    rollout: RolloutPlan,
    members: Sequence[Endpoint],
    kept: Sequence[Kept],
    now: float,
) -> PortfolioStatus:
    figures = tally(members, now=now)
    terminal = _terminal(portfolio, making, jobs, revisions, before)
    if world.repository_owner is not None:
        terminal = repository_owned(world.repository_owner)
    facts = Facts(
        generation=generation,
        making=making.status is not None and making.status.outcome in ("Running", "Suspended"),
        revision=revision.number if revision is not None else 0,
        terminal=terminal,
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
    failure = before.last_failure
    if terminal is not None and (failure is None or (failure.reason, failure.message) != terminal):
        failure = Failure(location="", reason=terminal[0], message=terminal[1][:1024], time=time_text(now))
    return PortfolioStatus(
        observed_generation=generation,
        conditions=conditions_of(facts, before=before.conditions, now=now),
        current_revision=facts.revision,
        variant_count=len(revision.variants) if revision is not None else 0,
        revisions=revisions,
        job=making.status,
        rollout=rollout.status,
        endpoints=figures.counts,
        address=Address(url=service_url(portfolio)) if portfolio.spec.serving.mode == "Managed" else None,
        last_switch_time=figures.last_switch_time or before.last_switch_time,
        last_failure=failure,
    )


def _terminal(
    portfolio: ModelPortfolio,
    making: MakingPlan,
    jobs: Sequence[ObservedJob],
    revisions: Sequence[RevisionStatus],
    before: PortfolioStatus,
) -> tuple[str, str] | None:
    """Reason and message of what waits for the user."""
    if portfolio.spec.source is None:
        return "SourceNeeded", "spec.source: it is absent, and no other cluster's repository can be followed. Add it."
    pinned = portfolio.spec.pinned_revision
    known = [entry.number for entry in revisions]
    if pinned and pinned not in known:
        listed = ", ".join(map(str, known)) or "none"
        return "UnknownRevision", f"spec.pinnedRevision = {pinned}: it is not kept; kept are: {listed}."
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
    return "MakingFailed", status.message


def _revisions(
    before: tuple[RevisionStatus, ...], published: RevisionStatus | None, limit: int
) -> tuple[RevisionStatus, ...]:
    """The newest ``limit`` revisions; one published again keeps the digest it was first pinned with."""
    if published is None or any(entry.number == published.number for entry in before):
        return before
    return tuple(sorted((*before, published), key=lambda entry: entry.number))[-limit:]


def _current(portfolio: ModelPortfolio, revisions: Sequence[RevisionStatus]) -> RevisionStatus | None:
    pinned = portfolio.spec.pinned_revision
    chosen = next((entry for entry in revisions if entry.number == pinned), None)
    return chosen or max(revisions, key=lambda entry: entry.number, default=None)


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


def _issues(world: World, portfolio: ModelPortfolio, kept: Sequence[Kept]) -> tuple[str, ...]:
    """What was asked and is not taken, each once."""
    found = dict.fromkeys(issue.message for decided in kept for issue in decided.issues)
    if world.nodes is None and portfolio.spec.objective_overrides:
        found[OVERRIDES_IGNORED] = None
    return tuple(found)


def _left_behind(world: World) -> tuple[str, ...]:
    """Endpoints of pods that are no longer this portfolio's: of another selector, or of an older portfolio."""
    selected = {str(pod["metadata"]["name"]) for pod in world.pods} - world.lost_pods.keys()
    return tuple(sorted({str(entry["metadata"]["name"]) for entry in world.endpoints} - selected))


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


def _pods_of(job: Object, pods: Sequence[Object]) -> list[Object]:
    """The pods of ``job``, oldest first."""
    own = [pod for pod in pods if pod["metadata"].get("labels", {}).get("job-name") == job["metadata"]["name"]]
    return sorted(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def _parsed(model: Any, document: Any) -> Any:
    """``document`` as ``model``; ``None`` where it is absent or from a world that this version does not know."""
    if not document:
        return None
    try:
        return model.model_validate(document)
    except ValidationError:
        return None
