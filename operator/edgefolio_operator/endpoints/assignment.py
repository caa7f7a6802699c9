"""The spec of one ModelEndpoint: its objectives, its revision, and the variant that the core decides for. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgefolio.contract.endpoint_report import observation_of, profile_of, state_of
from edgefolio.contract.node_profiles import profile_order, variants_for
from edgefolio.contract.order_reason import OrderReason
from edgefolio.decision import decide, objectives_from_specification
from edgefolio.decision.types import Action, Decision, Observation, State
from edgefolio.specification.conditions import time_seconds, truncated
from edgefolio.specification.endpoint import (
    EndpointSpecification,
    EndpointStatus,
    PortfolioReference,
    RevisionReference,
)
from edgefolio.specification.portfolio_status import RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.specification.serving import Switching
from edgefolio_operator.endpoints.endpoint import Endpoint, Surroundings
from edgefolio_operator.endpoints.objectives import Issue, Resolved, resolve
from edgefolio_operator.endpoints.observation import ClusterView, joined
from edgefolio_operator.endpoints.override_annotations import is_paused, pinned_variant
from edgefolio_operator.kube.objects import annotations_of

#: No two switches of an endpoint are this close.
SAME_SWITCH_SECONDS = 2.0
#: A violation this severe is acted on by the agent at once, as ordered in advance; a lesser one is the operator's.
SEVERE_PERCENT = 125


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One endpoint's order, its reason ``told``, and the state for its next decision.

    ``report_is_unusable``: its report could not be decided on, and counted as absent.
    """

    spec: EndpointSpecification
    told: OrderReason
    decision: Decision | None
    state: State
    issues: tuple[Issue, ...]
    report_is_unusable: bool = False


def assign(
    portfolio: ModelPortfolio,
    endpoint: Endpoint,
    *,
    view: ClusterView,
    revision: RevisionStatus | None,
    memory: State | None,
    epoch: int,
    now: float,
) -> Assignment:
    """Decide for one endpoint. ``memory`` is the state that its last assignment returned.

    ``view`` is the cluster's data on node and pod. Without a ``revision`` it keeps the ordered one: a field that a
    status lacks, or holds in a newer version's form, takes nothing away from an endpoint that serves.
    """
    surroundings, current, status = endpoint.surroundings, endpoint.spec, endpoint.status
    # Everything that the agent says has times of its clock: its decision is made in them.
    agent_now, offset = endpoint.agent_time(now), endpoint.hearing.clock_offset
    resolved = objectives_for(portfolio, surroundings)
    issues = list(resolved.issues)
    known = [variant.name for variant in revision.variants] if revision is not None else []
    splits = [split.name for split in revision.splits] if revision is not None else []
    pinned = pinned_variant(surroundings.annotations, known=known, splits=splits, issues=issues) if known else None
    switching = portfolio.spec.switching
    if is_paused(surroundings.annotations, issues=issues):
        switching = switching.model_copy(update={"policy": "Paused"})
    state = carried(memory, status)
    decision: Decision | None = None
    reference = current.revision if current is not None else None
    target = current.target_variant if current is not None else None
    profile = current.profile if current is not None else None
    if revision is not None and (revision.variants or reference is None):
        observation = joined(
            _within_revision(status, revision, now=agent_now),
            view,
            observed_at=_observed_at(status, now=agent_now) - offset,
            settled_at=-math.inf
            if state.last_switch_at is None
            else state.last_switch_at - offset + switching.settle_seconds,
            now=now,
        )
        decision, state = decide(
            observation=observation,
            objectives=replace(objectives_from_specification(resolved.objectives), pinned_variant=pinned),
            profiles=tuple(profile_of(variant) for variant in variants_for(revision, status)),
            switching=switching,
            state=state,
            now=agent_now,
        )
        reference = RevisionReference(number=revision.number, manifest_digest=revision.manifest_digest)
        profile = profile_order(revision, status)
        decision = replace(decision, profile=profile.evidence if profile is not None else "")
        target = _target(decision, observation, revision, current=current, status=status, state=state, now=agent_now)
    spec = EndpointSpecification(
        portfolio_ref=PortfolioReference(name=portfolio.metadata.name),
        pod_name=surroundings.pod_name,
        node_name=surroundings.node_name,
        model_name=portfolio.spec.serving.model_name,
        repository_uri=portfolio.spec.repository.uri,
        revision=reference,
        target_variant=target,
        pinned=pinned is not None,
        descend_at_percent=_descends(switching, resolved, endpoint, pinned=pinned is not None),
        profile=profile,
        objectives=resolved.objectives,
        switching=switching,
        epoch=epoch,
    )
    told = OrderReason() if decision is None else _told(decision)
    if spec == current and told.reason == endpoint.told.reason:
        told = endpoint.told  # only the figures differ: those change every second
    return Assignment(spec=spec, told=told, decision=decision, state=state, issues=tuple(issues))


def _descends(switching: Switching, resolved: Resolved, endpoint: Endpoint, *, pinned: bool) -> int | None:
    """The order in advance, where switches are made without a person: from the first standby on that was reported.

    It then stays, so that a standby that comes and goes is no new order each time.
    """
    free = switching.policy == "Auto" and switching.standby == "Auto" and not pinned
    known = endpoint.spec is not None and endpoint.spec.descend_at_percent is not None
    has_standby = known or len(endpoint.status.resident_variants) > 1
    asked = resolved.objectives.latency_p95_milliseconds is not None
    return SEVERE_PERCENT if free and has_standby and asked else None


def objectives_for(portfolio: ModelPortfolio, surroundings: Surroundings) -> Resolved:
    """The objectives of all levels that hold for the endpoint in these surroundings."""
    node = surroundings.node
    return resolve(
        spec=portfolio.spec.objectives,
        overrides=portfolio.spec.objective_overrides,
        annotation_policy=portfolio.spec.switching.annotation_policy,
        pod_annotations=annotations_of(surroundings.pod),
        node_annotations=annotations_of(node),
        node_labels=node["metadata"].get("labels", {}) if node is not None else {},
        namespace_annotations=annotations_of(surroundings.namespace),
    )


def carried(memory: State | None, status: EndpointStatus) -> State:
    """The state to decide from: the agent's reported state with the operator's timers (``memory``).

    After a restart there is no memory, and the timers restart: at worst a switch comes a little later. A switch that
    the agent made, asked or not, ends the timers of the variant it left.
    """
    reported = state_of(status.decision)
    if memory is None or not _is_same_switch(reported.last_switch_at, memory.last_switch_at):
        return reported
    return replace(
        reported,
        factor_updated_at=memory.factor_updated_at,
        observed_at=memory.observed_at,
        violation_since=memory.violation_since,
        violation_requests=memory.violation_requests,
        failing_since=memory.failing_since,
        fitting=memory.fitting,
        upgraded_variant=memory.upgraded_variant or reported.upgraded_variant,
        upgraded_at=memory.upgraded_at or reported.upgraded_at,
        upgrade_backoffs=memory.upgrade_backoffs or reported.upgrade_backoffs,
    )


def _is_same_switch(reported: float | None, remembered: float | None) -> bool:
    """Whether two times mean the same switch: they are whole seconds, of a clock that is corrected all the time."""
    if reported is None or remembered is None:
        return reported is remembered
    return abs(reported - remembered) <= SAME_SWITCH_SECONDS


def _within_revision(status: EndpointStatus, revision: RevisionStatus, *, now: float) -> Observation:
    """The observation without variants of revisions other than ``revision``."""
    observation = observation_of(status, now=now)
    if status.active_revision == revision.number:
        return observation
    return replace(observation, active_variant=None, resident_variants=(), traffic=None, probe=None)


def _observed_at(status: EndpointStatus, *, now: float) -> float:
    """When the agent took its memory figures."""
    report = status.observation
    if report is None or report.memory is None:
        return now
    return time_seconds(report.time) - float(report.memory.age_seconds)


def _target(
    decision: Decision,
    observation: Observation,
    revision: RevisionStatus,
    *,
    current: EndpointSpecification | None,
    status: EndpointStatus,
    state: State,
    now: float,
) -> str | None:
    """The variant to serve. A hold leaves a switch that is under way alone."""
    if decision.action is Action.SWITCH:
        return decision.target
    known = {variant.name for variant in revision.variants}
    barred = {entry.variant for entry in state.quarantined if entry.until > now}
    under_way = current is not None and current.revision is not None and current.revision.number == revision.number
    # An agent's autonomous switch stands: it is not reverted without a reason.
    alone = status.decision is not None and status.decision.decided_by == "Agent"
    asked = current.target_variant if current is not None and under_way else None
    if asked in known - barred and not (alone and observation.active_variant in known):
        return asked
    return observation.active_variant


def _told(decision: Decision) -> OrderReason:
    return OrderReason(reason=decision.reason.value, message=truncated(decision.message))
