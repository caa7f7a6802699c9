"""The decision: which variant an endpoint should serve now.

The rules run in this order; the first that applies decides:

1. serving nothing, or a dead server: serve the right one (in every policy); an active variant that no profile knows is
   replaced too;
2. policy ``Paused``; a variant that a person pinned; one that the operator ordered, unless its order in advance is to
   leave it for the standby in such a violation;
3. memory exceeded (the objective, the headroom under the server's limit, or the node's): the standby goes; without one,
   a smaller variant is taken at once;
4. metrics missing, stale, or taken while a switch settles: hold;
5. most requests fail, for ``downAfterSeconds``: another variant, once; the failing one is quarantined;
6. accuracy below the minimum: the right one above it;
7. latency violated, for ``downAfterSeconds`` and shown by ``minRequests``: a faster one;
8. a more accurate one fits, with margin and for ``upAfterSeconds``, and others leave it the node: that one.

Rules 1, 3 and 5 and a pin are not bound by dwell time and budget (but count in both); 6 to 8 are, and 8 leaves the last
switch of the budget for 7. Every hold says why, in one sentence with numbers. ``Recommend`` runs the same rules and
only says what they would do, but for serving nothing or a dead server.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

from edgefolio.decision.changed_objective import forgotten_windows, judged_anew, with_window_known
from edgefolio.decision.choice import latency_budget
from edgefolio.decision.context import Outcome, RuleContext
from edgefolio.decision.estimates.arrivals import traffic_before, update_arrivals
from edgefolio.decision.estimates.compute_factor import Measurement, measure, newest_factor, update_estimates
from edgefolio.decision.estimates.computing import variability_of, with_computing
from edgefolio.decision.estimates.own_factors import learned_from_probe
from edgefolio.decision.estimates.prediction import is_usable
from edgefolio.decision.evidence import SURE, forgotten, with_readings, with_window
from edgefolio.decision.rules.immediate import memory_rule, pin_rule, serve_something_rule, standby_memory_rule
from edgefolio.decision.rules.measured import RULES, ordered_descent_rule, upgrade_rule
from edgefolio.decision.rules.standby import plan_standby, remember_slowest, shortage
from edgefolio.decision.rules.timers import update_timers
from edgefolio.decision.state import is_time, sanitized
from edgefolio.decision.types import (
    Action,
    Decision,
    LatencyTest,
    Objectives,
    Observation,
    Reason,
    ServerState,
    State,
    VariantProfile,
)
from edgefolio.specification.serving import Switching

_Value = TypeVar("_Value")
_LARGEST_INTEGER = 2**63 - 1


def decide(
    *,
    observation: Observation,
    objectives: Objectives,
    profiles: tuple[VariantProfile, ...],
    switching: Switching,
    state: State,
    now: float,
    with_standby: bool = False,
) -> tuple[Decision, State]:
    """The decision for this cycle, and the state for the next one.

    ``with_standby`` asks what is to be resident beside the served variant: the agent, which keeps it, does.

    ``now`` is in seconds on the caller's clock; ``profiles`` may come in any order. Total: whatever the numbers, it
    decides and does not raise. The caller carries a switch out and then calls
    :func:`~edgefolio.decision.state.state_after_switch` or :func:`~edgefolio.decision.state.state_after_failure`.
    """
    if not is_time(now):
        message = "The clock's time is not a usable number; nothing is decided without one."
        hold = Decision(
            action=Action.HOLD, reason=Reason.MISSING_METRICS, target=None, message=message, objectives_met=None
        )
        return hold, state
    context = context_of(
        observation=observation, objectives=objectives, profiles=profiles, switching=switching, state=state, now=now
    )
    if not context.profiles:
        return context.hold(Reason.MISSING_METRICS, "No variant has a usable profile."), context.state
    if (decision := serve_something_rule(context)) is not None:
        decision, after = _under_policy(decision, context.state, context)
        return replace(decision, standby=plan_standby(context, decision) if with_standby else None), after
    problem, context = with_measurement(context)
    decision, after = _under_policy(*_by_rules(context, problem), context)
    if with_standby:
        decision = replace(decision, standby=plan_standby(context, decision))
    if decision.action is Action.HOLD and shortage(context) is not None:
        after = replace(after, standby_released_at=context.now)
    if decision.action is Action.SWITCH:
        after = replace(after, before_switch=traffic_before(context.measurement, switching))
    return decision, after


def context_of(
    *,
    observation: Observation,
    objectives: Objectives,
    profiles: tuple[VariantProfile, ...],
    switching: Switching,
    state: State,
    now: float,
) -> RuleContext:
    """The context at ``now`` before anything is measured: usable profiles alone, and a state that is usable now."""
    return RuleContext(
        observation=_with_bounded_integers(observation),
        objectives=_with_bounded_integers(objectives),
        profiles=_usable(profiles),
        switching=switching,
        state=sanitized(state, now=now, switching=switching),
        now=now,
    )


def with_measurement(context: RuleContext) -> tuple[tuple[Reason, str] | None, RuleContext]:
    """``context`` with its measurement, estimates and timers, or why its metrics are not believed.

    The active variant must have a profile.
    """
    problem = _unusable_metrics(context)
    return _measured(context) if problem is None else (problem, context)


def _under_policy(decision: Decision, after: State, context: RuleContext) -> Outcome:
    """The decision under the policy: as it is, only if it keeps an endpoint serving, or as a recommendation."""
    policy = context.switching.policy
    if policy == "Auto" or decision.reason in (Reason.INITIAL, Reason.SERVER_DEAD):
        return decision, after
    if policy == "Paused":
        return context.hold(Reason.PAUSED, "The policy is Paused."), context.state
    if decision.action is Action.HOLD:
        return decision, after
    message = f"The policy is Recommend; a switch to {decision.target} is due: {decision.message}"
    return replace(decision, action=Action.HOLD, reason=Reason.RECOMMEND_ONLY, message=message), context.state


def _by_rules(context: RuleContext, problem: tuple[Reason, str] | None) -> Outcome:
    if problem is None and (outcome := ordered_descent_rule(context)) is not None:
        return outcome
    for rule in (pin_rule, standby_memory_rule, memory_rule):
        if (outcome := rule(context)) is not None:
            return outcome
    if problem is not None:
        return context.hold(*problem), context.state
    for rule in RULES:
        if (outcome := rule(context)) is not None:
            return outcome
    return upgrade_rule(context)


def _with_bounded_integers(value: _Value) -> _Value:
    """``value`` with every whole number in it within 64 bits: larger ones from JSON cannot be made floats of."""
    found: object = value
    if isinstance(value, int) and not isinstance(value, bool):
        found = min(max(value, -_LARGEST_INTEGER), _LARGEST_INTEGER)
    elif isinstance(value, tuple):
        found = tuple(_with_bounded_integers(entry) for entry in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {name: new for name, old in parts.items() if (new := _with_bounded_integers(old)) != old}
        found = replace(value, **changed) if changed else value
    return cast(_Value, found)


def _usable(profiles: tuple[VariantProfile, ...]) -> tuple[VariantProfile, ...]:
    """Usable profiles by rank; of two with one name the first."""
    by_name: dict[str, VariantProfile] = {}
    for profile in profiles:
        if is_usable(profile):
            by_name.setdefault(profile.name, profile)
    return tuple(sorted(by_name.values(), key=lambda profile: (profile.rank, profile.name)))


def _unusable_metrics(context: RuleContext) -> tuple[Reason, str] | None:
    """Why this cycle's metrics cannot be used; ``None`` if they can."""
    switching, traffic, memory = context.switching, context.observation.traffic, context.observation.memory
    since_switch = context.since_switch
    if since_switch is not None and since_switch < switching.settle_seconds:
        text = f"The last switch was {since_switch:.1f} s ago; measurements count from {switching.settle_seconds} s."
        return Reason.SETTLING, text
    if context.observation.server is ServerState.UNKNOWN:
        return Reason.MISSING_METRICS, "Whether the server answers is not known."
    if traffic is None:
        return Reason.MISSING_METRICS, "The server's counters could not be read."
    for what, age in (("counters", traffic.age_seconds), ("memory figures", memory.age_seconds if memory else 0.0)):
        # Written so that a NaN age counts as stale.
        if not age <= switching.stale_after_seconds:
            text = f"The server's {what} are {age:.4g} s old; at most {switching.stale_after_seconds} s are believed."
            return Reason.STALE_METRICS, text
    return None


def _measured(context: RuleContext) -> tuple[tuple[Reason, str] | None, RuleContext]:
    """``context`` with its measurement, estimates and timers; or why the numbers cannot be used."""
    state, switching, traffic, active = context.state, context.switching, context.observation.traffic, context.active
    assert traffic is not None
    assert active is not None
    measurement = measure(traffic, active, variability=variability_of(state, active))
    if measurement is None:
        text = "The server's counters make no sense: a value is negative, infinite, or zero where it cannot be."
        return (Reason.MISSING_METRICS, text), context
    # Timers mean "without a break": a gap longer than the staleness limit resets them.
    longest = max(float(switching.stale_after_seconds), 3 * float(switching.observe_seconds))
    elapsed = 0.0 if state.observed_at is None else context.now - state.observed_at
    if state.observed_at is None or elapsed > longest:
        state = replace(
            state,
            violation_since=None,
            violation_requests=0.0,
            failing_since=None,
            fitting=(),
            calm_since=None,
            latency_test=forgotten_windows(forgotten(state.latency_test)),
        )
    state, recovered = with_computing(state, traffic.readings, profile=active, sure=SURE)
    state = update_estimates(
        replace(state, observed_at=context.now),
        measurement=measurement,
        probe=context.observation.probe,
        profile=active,
        switching=switching,
        now=context.now,
        readings=traffic.readings,
        recovered=recovered,
    )
    standby = context.observation.standby_probe
    state = learned_from_probe(
        state,
        standby,
        profile=None if standby is None else context.profile(standby.variant),
        active=active,
        elapsed=elapsed,
        latest=newest_factor(traffic.readings, active, measurement.factor),
    )
    state = update_arrivals(
        state, measurement=measurement, profile=active, switching=switching, elapsed=elapsed, now=context.now
    )
    state = remember_slowest(state, now=context.now)
    context = replace(context, state=state, measurement=measurement)
    # A context remembers what it derived from its state, so this is another one.
    context = replace(context, state=replace(state, latency_test=_tested(context, measurement, elapsed=elapsed)))
    return None, replace(context, state=update_timers(context, elapsed=elapsed))


def _tested(context: RuleContext, measurement: Measurement, *, elapsed: float) -> LatencyTest:
    """The test of a violation after what this observation says."""
    state, traffic, active = context.state, context.observation.traffic, context.known_active
    assert traffic is not None
    test, budget = state.latency_test, latency_budget(context.objectives)
    is_changed = test.known_seconds > 0 and test.budget != budget
    test = with_window_known(replace(test, budget=budget), measurement, window=traffic.seconds, elapsed=elapsed)
    if is_changed:
        # The readings are in the windows that it knows.
        return judged_anew(test, measurement, budget=budget)
    if traffic.readings:
        variability = variability_of(state, active)
        return with_readings(test, traffic.readings, profile=active, budget=budget, variability=variability)
    if context.violates_by_window:
        return with_window(test, measurement, budget=budget, elapsed=elapsed)
    return forgotten(test)
