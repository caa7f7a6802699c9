"""Rules that need no metrics and no timers: nothing served, a pinned variant, memory exceeded.

A rule returns what it decides, or ``None`` if it does not apply. The order stands in :mod:`edgefolio.decision.core`.
"""

from __future__ import annotations

from dataclasses import replace

from edgefolio.decision.choice import choose, speed
from edgefolio.decision.context import Outcome, RuleContext
from edgefolio.decision.estimates.memory import exceeds_limit, is_short_of_memory, mebibytes, needed_bytes
from edgefolio.decision.rules.standby import shortage
from edgefolio.decision.rules.timers import descended, entered, record_bounce, risen
from edgefolio.decision.state import retry_at
from edgefolio.decision.types import MEMORY_PRESSURE, Decision, Reason, ServerState


def serve_something_rule(context: RuleContext) -> Decision | None:
    """Nothing served, a dead server or an unknown variant: serve the best one."""
    observation = context.observation
    if observation.server is ServerState.DEAD:
        # A repair starts from an empty server: loaded variants are lost.
        memory = observation.memory and replace(observation.memory, working_set_bytes=None)
        observation = replace(observation, active_variant=None, resident_variants=(), memory=memory)
        reason, why = Reason.SERVER_DEAD, "The server does not answer inference"
    elif observation.active_variant is None:
        reason, why = Reason.INITIAL, "Nothing of this revision is served yet"
    elif context.active is None:
        reason, why = Reason.UNKNOWN_ACTIVE_VARIANT, f"No profile knows the active {observation.active_variant}"
        observation = replace(observation, active_variant=None)
    else:
        return None
    fresh = replace(context, observation=observation)
    wanted = (context.objectives.pinned_variant, context.active.name if context.active else None)
    for name in wanted:
        found = fresh.assessment(name)
        if found is not None and (
            found.can_be_ordered if name == context.objectives.pinned_variant else found.servable
        ):
            return fresh.switch(reason, f"{why}; {name} is loaded.", target=found.profile.name)
    choice = choose(fresh.assessments)
    if choice is not None:
        return fresh.switch(reason, f"{why}; {fresh.clause(choice)}.", target=choice.name)
    return _last_resort(fresh, reason, why)


def pin_rule(context: RuleContext) -> Outcome | None:
    """Serve a pinned variant and keep it."""
    pinned, active = context.objectives.pinned_variant, context.known_active.name
    if pinned is None:
        return None
    if pinned == active:
        return context.hold(Reason.PINNED, f"{pinned} is pinned and serves."), context.state
    found = context.assessment(pinned)
    if found is None or found.prediction.quarantined:
        fault = "no such variant exists" if found is None else "it is quarantined after failures"
        return context.hold(Reason.PINNED, f"{pinned} is pinned, but {fault}; {active} stays."), context.state
    if not found.can_be_ordered:
        if found.bar is None or found.bar.yields:
            return context.short_of_memory(found), context.state
        message = f"{pinned} is pinned, but {found.bar.clause}; {active} stays."
        return context.hold(found.bar.reason, message, target=pinned), context.state
    state = context.state
    if context.objectives.pin_is_order:
        # The operator's steps up and down bounce as the agent's own do, and the agent remembers it for both.
        if found.profile.rank > context.known_active.rank:
            state = risen(context, pinned)
        else:
            state = record_bounce(context)
            if pinned in context.observation.resident_variants:
                state = descended(context, state)
        state = entered(context, state, pinned)
    return context.switch(Reason.PINNED, f"{pinned} is pinned.", target=pinned), state


def standby_memory_rule(context: RuleContext) -> Outcome | None:
    """Memory is short while a standby is resident: it goes before the variant that serves."""
    why = shortage(context)
    if why is None:
        return None
    names = ", ".join(profile.name for profile in context.standbys)
    message = f"The standby {names} is unloaded: {why}."
    return context.hold(Reason.STANDBY_RELEASED, message), context.state


def memory_rule(context: RuleContext) -> Outcome | None:
    """More memory than the objective, the headroom or the node allows: a smaller one, ignoring dwell and budget."""
    active, maximum, memory = context.known_active, context.objectives.max_memory_bytes, context.observation.memory
    headroom = float(context.switching.memory_headroom_percent)
    over_limit = exceeds_limit(memory, headroom_percent=headroom)
    over_objective = maximum is not None and needed_bytes(active) > maximum
    if not over_objective and not over_limit:
        return _memory_pressure(context) if is_short_of_memory(context.observation) else None
    # The rest of the headroom may be used for the switch.
    smaller = [
        entry
        for entry in context.assessed(headroom_percent=0.0 if over_limit else headroom)
        # A split is nothing for an emergency: others would have to load for it.
        if needed_bytes(entry.profile) < needed_bytes(active) and entry.profile.split is None
    ]
    if not smaller and not over_objective:
        # The smallest serves already, so the excess is not the variant's. The other rules go on.
        return None
    if over_objective:
        why = f"{active.name} needs {mebibytes(needed_bytes(active))} of at most {mebibytes(maximum)}"
    else:
        assert memory is not None
        why = (
            f"The server uses {mebibytes(memory.working_set_bytes)} of {mebibytes(memory.limit_bytes)}, "
            f"{headroom:g} % must stay free"
        )
    choice = choose(smaller)
    if choice is not None:
        message = f"{why}; {context.clause(choice)}."
        return context.switch(Reason.MEMORY_EXCEEDED, message, target=choice.name), record_bounce(context)
    willing = [entry for entry in smaller if not entry.prediction.quarantined]
    if willing:
        return context.short_of_memory(min(willing, key=lambda entry: needed_bytes(entry.profile))), context.state
    return context.hold(Reason.OBJECTIVES_NOT_MET, f"{why}, and no smaller variant can be taken."), context.state


def _memory_pressure(context: RuleContext) -> Outcome | None:
    """The node is short of memory: the smallest variant that is accurate enough.

    In one step, since the kubelet keeps the condition for minutes whatever is done about it: step by step the endpoint
    would load one variant after the other meanwhile. This server need not be the cause, so the accuracy
    minimum stays a floor.
    """
    active = context.known_active
    smaller = [
        entry
        for entry in context.assessments
        if needed_bytes(entry.profile) < needed_bytes(active)
        and entry.profile.split is None
        and entry.prediction.meets_accuracy
        and not entry.prediction.quarantined
    ]
    if not smaller:
        return None
    order = sorted(smaller, key=lambda entry: (needed_bytes(entry.profile), *speed(entry)))
    taken = next((entry.profile for entry in order if entry.servable), None)
    if taken is None:
        return context.short_of_memory(order[0]), context.state
    message = (
        f"The node reports {MEMORY_PRESSURE} and {active.name} needs {mebibytes(needed_bytes(active))}; "
        f"{taken.name} needs {mebibytes(needed_bytes(taken))}."
    )
    return context.switch(Reason.MEMORY_EXCEEDED, message, target=taken.name), record_bounce(context)


def _last_resort(context: RuleContext, reason: Reason, why: str) -> Decision:
    """Nothing can be chosen: an endpoint that serves nothing tries quarantined variants sooner than others do."""
    possible = [
        entry
        for entry in context.assessments
        if entry.prediction.fits_memory and entry.prediction.fits_memory_during_switch and entry.bar is None
    ]
    if not possible:
        smallest = min(context.assessments, key=lambda entry: (entry.bar is not None, needed_bytes(entry.profile)))
        if smallest.bar is not None:
            message = f"{why}, and {smallest.profile.name} is a split: {smallest.bar.clause}."
            return context.hold(smallest.bar.reason, message, target=smallest.profile.name)
        return context.short_of_memory(smallest)
    if reason is Reason.UNKNOWN_ACTIVE_VARIANT:
        return context.hold(Reason.ALL_QUARANTINED, f"{why}, and all others are quarantined.")
    names = {entry.profile.name for entry in possible}
    waiting = [entry for entry in context.state.quarantined if entry.variant in names]
    first = min(waiting, key=lambda entry: retry_at(entry, context.switching))
    due = retry_at(first, context.switching) - context.now
    if due > 0:
        message = f"{why}, and all variants are quarantined; {first.variant} is tried again in {due:.0f} s."
        return context.hold(Reason.ALL_QUARANTINED, message, target=first.variant)
    message = f"{why}, and all variants are quarantined; {first.variant} is tried again ({first.cause})."
    return context.switch(reason, message, target=first.variant)
