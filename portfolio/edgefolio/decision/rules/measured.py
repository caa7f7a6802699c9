"""Rules on believed metrics, one function each: failures, accuracy, latency, upgrade; splits have a file of their own.

A rule returns what it decides, or ``None`` if it does not apply. Timers and estimates are up to date when it runs; the
order stands in :mod:`edgefolio.decision.core`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgefolio.decision.choice import Assessment, Choice, choose, latency_budget
from edgefolio.decision.context import Outcome, RuleContext
from edgefolio.decision.rules.limits import limited
from edgefolio.decision.rules.splits import barred_split, late_fallback_rule, peers_rule
from edgefolio.decision.rules.timers import (
    descended,
    entered,
    is_on_the_way_back,
    is_waiting,
    record_bounce,
    risen,
    waiting_backoffs,
)
from edgefolio.decision.state import state_after_failure
from edgefolio.decision.types import Decision, Reason

FAILURE_CAUSE = "most requests failed"


def failures_rule(context: RuleContext) -> Outcome | None:
    """Most requests fail for long: the variant is replaced, once; if its successor fails too, it was not the variant.

    Clients that send nonsense must not walk an endpoint through its whole portfolio.
    """
    found, since, active = context.measurement, context.state.failing_since, context.known_active
    if found is None or since is None:
        return None
    share = f"{found.failures} of {found.requests + found.failures} requests failed"
    age, needed = context.now - since, context.switching.down_after_seconds
    if age < needed:
        return context.hold(Reason.VIOLATION_TOO_SHORT, f"{share}, for {age:.1f} s of {needed} s."), context.state
    switched = context.state.last_switch_at
    if switched is not None and since <= switched:
        message = f"{share}, as they did before {active.name} was taken: the variant is not the cause."
        return context.hold(Reason.OBJECTIVES_NOT_MET, message), context.state
    others = (profile for profile in context.profiles if profile.name != active.name and profile.split is None)
    choice = context.choice(profile.name for profile in others)
    if choice is None:
        return context.hold(Reason.ALL_QUARANTINED, f"{share}, and no other variant can be taken."), context.state
    state = state_after_failure(
        record_bounce(context), variant=active.name, cause=FAILURE_CAUSE, now=context.now, switching=context.switching
    )
    message = f"{share}; {active.name} is quarantined, {context.clause(choice)}."
    return context.switch(Reason.FAILURES, message, target=choice.name), state


def accuracy_rule(context: RuleContext) -> Outcome | None:
    """The active variant is less accurate than asked, and one nearer to it can be served."""
    active, minimum = context.known_active, context.objectives.min_accuracy_percent
    found = context.assessment(active.name)
    if minimum is None or found is None or found.prediction.meets_accuracy:
        return None
    if active.split is not None and active.accuracy_percent >= minimum:
        # Answers of its fallback are less accurate: that is a matter of its peers.
        return None
    why = f"{active.name} has {active.accuracy_percent:.2f} % of at least {minimum:.4g} %"
    possible = [entry for entry in context.assessments if not is_waiting(context, entry.profile)]
    better = [entry for entry in possible if entry.profile.accuracy_percent > active.accuracy_percent]
    choice = choose(possible)
    if choice is not None and choice.assessment in better:
        if (held := limited(context, choice.name)) is not None:
            return held
        message = f"{why}; {context.clause(choice)}."
        state = entered(context, context.state, choice.name)
        return context.switch(Reason.ACCURACY_BELOW_MINIMUM, message, target=choice.name), state
    blocked = _blocked_by_memory(better)
    if blocked is not None:
        return context.short_of_memory(blocked), context.state
    message = f"{why}, and no more accurate variant can be taken."
    return context.hold(Reason.OBJECTIVES_NOT_MET, message), context.state


def latency_rule(context: RuleContext) -> Outcome | None:
    """Outside the latency objective: down to what is resident once that is sure, else after ``downAfterSeconds``."""
    found, state, active, switching = context.measurement, context.state, context.known_active, context.switching
    budget, p95, since = latency_budget(context.objectives), context.p95_milliseconds, state.violation_since
    if found is None or budget is None or p95 is None or since is None or not context.violates_latency:
        return None
    age, seen = context.now - since, state.violation_requests
    verdict, resident = context.verdict, resident_choice(context)
    if verdict.is_sure:
        p95 = max(p95, budget * verdict.ratio)
    what = f"p95 of {active.name} is {p95:.1f} ms of {budget:.1f} ms"
    if found.saturated:
        what += f", {found.in_flight:.1f} requests are in a saturated server"
    is_sure = verdict.is_sure and resident is not None
    if not is_sure and (age < switching.down_after_seconds or seen < switching.min_requests):
        message = (
            f"{what}, for {age:.1f} s of {switching.down_after_seconds} s "
            f"and {seen:.0f} of {switching.min_requests} requests."
        )
        return context.hold(Reason.VIOLATION_TOO_SHORT, message), state
    faster = faster_variants(context)
    choice = resident or context.choice([active.name, *(entry.profile.name for entry in faster)])
    if choice is None or choice.name == active.name:
        blocked = _blocked_by_memory(faster)
        if blocked is not None:
            return context.short_of_memory(blocked), context.state
        if (barred := barred_split(context, context.assessments)) is not None:
            return barred, state
        return context.hold(Reason.OBJECTIVES_NOT_MET, f"{what}, and no faster variant can be taken."), state
    if (held := limited(context, choice.name, dwells=resident is None)) is not None:
        return held
    reason = Reason.SATURATED if found.saturated else Reason.LATENCY_VIOLATED
    after = entered(context, record_bounce(context), choice.name)
    if resident is None:
        return context.switch(reason, f"{what}, for {age:.0f} s; {context.clause(choice)}.", target=choice.name), after
    message = f"{what}, for {age:.1f} s; {choice.name} is resident{'' if choice.objectives_met else ', and faster'}."
    return context.switch(reason, message, target=choice.name), descended(context, after)


def ordered_descent_rule(context: RuleContext) -> Outcome | None:
    """The ordered variant violates so severely that the operator's order in advance holds: down to the standby."""
    objectives, active, verdict = context.objectives, context.known_active, context.verdict
    percent, budget = objectives.descend_at_percent, latency_budget(objectives)
    if percent is None or budget is None or not objectives.pin_is_order or objectives.pinned_variant != active.name:
        return None
    resident = resident_choice(context)
    if resident is None or not verdict.is_sure or not 100 * verdict.ratio >= percent:
        return None
    if limited(context, resident.name, dwells=False) is not None:
        return None
    message = (
        f"p95 of {active.name} is {budget * verdict.ratio:.1f} ms of {budget:.1f} ms; "
        f"from {percent:g} % on the order is to go down to {resident.name}, which is resident."
    )
    after = descended(context, record_bounce(context))
    return context.switch(Reason.LATENCY_VIOLATED, message, target=resident.name), after


def resident_choice(context: RuleContext) -> Choice | None:
    """The resident variant that a violation goes down to; ``None`` if none is faster.

    One that is predicted to meet the objectives; in a violation that is sure also one that comes nearer to them.
    """
    standbys = {profile.name for profile in context.standbys if profile.split is None}
    choice = choose([entry for entry in faster_variants(context) if entry.profile.name in standbys])
    if choice is None or choice.objectives_met:
        return choice
    allowed = choice.assessment.prediction.meets_accuracy and choice.assessment.within_memory_objective
    return choice if allowed and context.verdict.is_sure else None


def faster_variants(context: RuleContext) -> list[Assessment]:
    """The assessments of the variants that are faster than the active one, without splits that must wait."""
    pace = context.pace(context.known_active)
    return [
        entry
        for entry in context.assessments
        if context.pace(entry.profile) < pace and not is_waiting(context, entry.profile)
    ]


#: In this order, once the metrics are believed; :func:`upgrade_rule` comes last and always decides.
RULES = (failures_rule, accuracy_rule, peers_rule, latency_rule, late_fallback_rule)


def upgrade_rule(context: RuleContext) -> Outcome:
    """Inside the objectives: the most accurate variant that has fitted, with margin, for long enough."""
    active, state, switching = context.known_active, context.state, context.switching
    if not state.fitting:
        return _no_upgrade_due(context), state
    ready = [entry for entry in state.fitting if context.now - entry.since >= _up_after(context, entry.variant)]
    front = max(state.fitting, key=lambda entry: _rank(context, entry.variant))
    due = front.since + _up_after(context, front.variant) - context.now
    # Taking a lesser one now would block the best one for a dwell time: if it is due within that, wait for it.
    if not ready or 0 < due <= switching.min_dwell_seconds:
        age = context.now - front.since
        needed = _up_after(context, front.variant)
        message = f"{front.variant} has fitted for {age:.0f} s of {needed:g} s; {active.name} serves."
        return context.hold(Reason.CALM_TOO_SHORT, message, target=front.variant), state
    best = max(ready, key=lambda entry: _rank(context, entry.variant))
    age = context.now - best.since
    # The last switch of the budget is kept for the way down: an upgrade that bounces must not be stuck.
    held = limited(
        context,
        best.variant,
        reserve=min(1, switching.max_switches_per_hour - 1),
        dwells=not _corrects_descent(context, best.variant),
    )
    if held is not None:
        return held
    if (busy := context.node_busy) is not None:
        message = f"{best.variant} has fitted for {age:.0f} s, but {busy}; {active.name} serves."
        return context.hold(Reason.NODE_BUSY, message, target=best.variant), state
    chosen = context.assessment(best.variant)
    assert chosen is not None
    message = (
        f"{best.variant} has fitted for {age:.0f} s; {context.clause(Choice(assessment=chosen, objectives_met=True))}."
    )
    decision = context.switch(Reason.MORE_ACCURATE_FITS, message, target=best.variant)
    return decision, risen(context, best.variant)


def _up_after(context: RuleContext, variant: str) -> float:
    """Seconds for which ``variant`` must fit: ``upAfterSeconds``, less where it corrects a descent.

    The way down took what was resident, not what fits best, and the way down again would take milliseconds. The variant
    that was left, and any faster one, may be taken after ``downAfterSeconds``.
    """
    switching = context.switching
    shortest = _corrects_descent(context, variant)
    return float(min(switching.up_after_seconds, switching.down_after_seconds if shortest else math.inf))


def _corrects_descent(context: RuleContext, variant: str) -> bool:
    """Whether ``variant`` is what was left for what was resident, or lies between.

    Such a step does not dwell: one that must be undone is undone in milliseconds, and is a bounce, after which the next
    waits ``minDwellSeconds``, twice that, up to an hour. That, and the budget, bounds what a flapping neighbour does.
    A split corrects nothing: all of its workers load for it.
    """
    descent, profile = context.state.descent, context.profile(variant)
    if profile is None or profile.split is not None:
        return False
    return (descent is not None and descent.variant == variant) or is_on_the_way_back(context, variant)


def _no_upgrade_due(context: RuleContext) -> Decision:
    """Hold, with what keeps more accurate variants out, or that the objectives are met."""
    active, budget = context.known_active, latency_budget(context.objectives)
    above = [entry for entry in context.assessments if entry.profile.rank > active.rank]
    fitting = [entry for entry in above if entry.meets_all]
    waiting = waiting_backoffs(context)
    if waiting and any(entry.servable for entry in fitting):
        last = max(waiting, key=lambda entry: entry.until)
        message = (
            f"{last.variant} had to be left soon after it was taken ({last.bounces} times); "
            f"it is tried again in {last.until - context.now:.0f} s."
        )
        return context.hold(Reason.CALM_TOO_SHORT, message, target=None)
    blocked = _blocked_by_memory(fitting)
    if blocked is not None:
        return context.short_of_memory(blocked)
    if (barred := barred_split(context, above)) is not None:
        return barred
    near = [
        entry
        for entry in above
        if entry.servable
        and entry.within_memory_objective
        and entry.prediction.meets_accuracy
        and budget is not None
        and (entry.prediction.p95_milliseconds or budget + 1) <= budget
    ]
    if near:
        best = max(near, key=lambda entry: entry.profile.rank)
        message = (
            f"{best.profile.name} is predicted to be inside the objectives, but not safely: {best.prediction.verdict}."
        )
        return context.hold(Reason.DEAD_BAND, message)
    p95 = context.p95_milliseconds
    shown = "" if p95 is None else f" at p95 {p95:.1f} ms" + ("" if budget is None else f" of {budget:.1f} ms")
    if context.objectives_met is False:
        return context.hold(Reason.OBJECTIVES_NOT_MET, f"{active.name} serves{shown}, and no other variant is right.")
    rest = "no more accurate one fits" if above else "it is the most accurate one"
    return context.hold(Reason.OBJECTIVES_MET, f"{active.name} serves{shown}; {rest}.")


def _blocked_by_memory(entries: Iterable[Assessment]) -> Assessment | None:
    """The best of ``entries`` that only the memory during the switch keeps out."""
    blocked = [
        entry
        for entry in entries
        if entry.prediction.fits_memory
        and not entry.prediction.fits_memory_during_switch
        and not entry.prediction.quarantined
        and entry.within_memory_objective
        and entry.prediction.meets_accuracy
    ]
    return max(blocked, key=lambda entry: entry.profile.rank, default=None)


def _rank(context: RuleContext, name: str) -> int:
    profile = context.profile(name)
    return 0 if profile is None else profile.rank
