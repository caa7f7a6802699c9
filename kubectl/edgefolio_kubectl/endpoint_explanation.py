"""Explanation of an endpoint's variant: the core's choice for its last report. Pure.

The operator decides with the same function, profiles, objectives and report, but it alone has the violation and fit
timers and the node's figures. So this is its choice once all waiting times are over, beside its last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.contract.endpoint_report import profile_of, state_of
from edgefolio.contract.node_profiles import variants_for
from edgefolio.decision.explain import Explanation, explain_observed
from edgefolio.decision.profiles import objectives_from_specification
from edgefolio.decision.state import HOUR_SECONDS
from edgefolio.decision.types import State
from edgefolio.specification.endpoint import EndpointSpecification
from edgefolio.specification.serving import Switching
from edgefolio_kubectl.display.formatting import span
from edgefolio_kubectl.views import CurrentDecision, EndpointView, LastObservation, PortfolioView


@dataclass(frozen=True, kw_only=True)
class EndpointExplanation:
    """One endpoint: its last observation, the decision in force, the core's choice, and its timers.

    ``explanation`` is ``None`` while no revision is published; ``timers`` are clauses for people. ``profile`` says
    which profile the figures rest on; empty for an agent that does not say what its processor is.
    """

    endpoint: EndpointView
    spec: EndpointSpecification
    observation: LastObservation | None
    current_decision: CurrentDecision | None
    explanation: Explanation | None
    timers: tuple[str, ...]
    profile: str = ""


def explain_endpoint(
    portfolio: PortfolioView, endpoint: EndpointView, spec: EndpointSpecification, *, now: float
) -> EndpointExplanation:
    """The explanation at ``now``; ``spec`` is the endpoint's."""
    revision = portfolio.revision(endpoint.revision)
    variants = variants_for(revision, endpoint.status) if revision is not None else ()
    explanation = None
    if variants:
        explanation = explain_observed(
            observation=endpoint.observation(now=now),
            objectives=objectives_from_specification(spec.objectives),
            profiles=tuple(profile_of(variant) for variant in variants),
            switching=spec.switching,
            state=state_of(endpoint.status.decision),
            now=now,
        )
    state = state_of(endpoint.status.decision) if explanation is None else explanation.state
    return EndpointExplanation(
        endpoint=endpoint,
        spec=spec,
        observation=endpoint.last_observation(variants, now=now),
        current_decision=endpoint.current_decision,
        explanation=explanation,
        timers=tuple(timers(state, spec.switching, now=now)),
        profile=_profile(endpoint, spec),
    )


def _profile(endpoint: EndpointView, spec: EndpointSpecification) -> str:
    order = spec.profile
    if order is None:
        return ""
    if order.digest == endpoint.status.profile_digest:
        return order.evidence
    return f"{order.evidence} Its agent has not fetched it yet; until then the profile in the manifest counts."


def timers(state: State, switching: Switching, *, now: float) -> list[str]:
    """Waits and their lengths, as clauses."""
    found = []
    if state.last_switch_at is not None:
        since = max(0.0, now - state.last_switch_at)
        left = switching.min_dwell_seconds - since
        wait = f"another {span(left)} of minDwellSeconds" if left > 0 else "minDwellSeconds is over"
        found.append(f"last switch {span(since)} ago: {wait}")
    recent = [time for time in state.recent_switches if 0 <= now - time < HOUR_SECONDS]
    line = f"{len(recent)} of {switching.max_switches_per_hour} switches of this hour are used"
    if len(recent) >= switching.max_switches_per_hour:
        line += f"; the next is free in {span(min(recent) + HOUR_SECONDS - now)}"
    found.append(line)
    found += [
        f"{entry.variant} is quarantined for {span(entry.until - now)} more, after {entry.failures} "
        f"failure{'s' if entry.failures != 1 else ''}: {entry.cause or 'unknown'}"
        for entry in state.quarantined
        if entry.until > now
    ]
    found += [
        f"{entry.variant} had to be left soon after it was taken ({entry.bounces} times): not tried again "
        f"for {span(entry.until - now)}"
        for entry in state.upgrade_backoffs
        if entry.until > now
    ]
    return found
