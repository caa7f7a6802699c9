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
7. a split serves and its peers are lost, for ``downAfterSeconds``: a variant of one node;
8. latency violated, for ``downAfterSeconds`` and shown by ``minRequests``: a faster one;
9. a split serves whose fallback would be late, and one node has met the objectives for ``upAfterSeconds``: its variant;
10. a more accurate one fits, with margin and for ``upAfterSeconds``, and others leave it the node: that one.

Rules 1, 3 and 5 and a pin are not bound by dwell time and budget (but count in both); 6 to 10 are, and 9 and 10 leave
the last switch of the budget for 7 and 8. Every hold says why, in one sentence with numbers. ``Recommend`` runs the
same rules and only says what they would do, but for serving nothing or a dead server.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

from edgefolio.decision.context import Outcome, RuleContext
from edgefolio.decision.estimates.arrivals import traffic_before
from edgefolio.decision.estimates.prediction import is_usable
from edgefolio.decision.rules.immediate import memory_rule, pin_rule, serve_something_rule, standby_memory_rule
from edgefolio.decision.rules.measured import RULES, ordered_descent_rule, upgrade_rule
from edgefolio.decision.rules.measuring import with_measurement
from edgefolio.decision.rules.splits import accuracy_as_served
from edgefolio.decision.rules.standby import plan_standby, shortage
from edgefolio.decision.state import is_time, sanitized
from edgefolio.decision.types import (
    Action,
    Decision,
    Objectives,
    Observation,
    Reason,
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
        decision = _with_split(decision, context)
        return replace(decision, standby=plan_standby(context, decision) if with_standby else None), after
    problem, context = with_measurement(context)
    decision, after = _under_policy(*_by_rules(context, problem), context)
    decision = _with_split(decision, context)
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


def _with_split(decision: Decision, context: RuleContext) -> Decision:
    """``decision`` with what answers beside the shard of a split, and the accuracy of what was really answered."""
    served = decision.target if decision.action is Action.SWITCH else context.observation.active_variant
    found = context.assessment(served)
    return replace(
        decision,
        fallback=None if found is None else found.fallback,
        served_accuracy_percent=None if context.active is None else accuracy_as_served(context),
    )


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
