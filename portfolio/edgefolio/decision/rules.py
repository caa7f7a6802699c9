"""The rules of the core, one function each; which comes first stands in :mod:`edgefolio.decision.core`.

A rule returns what it decides, or ``None`` if it does not apply. Timers and estimates are up to date when it runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgefolio.decision.choice import Assessment, Choice, choose, latency_budget, speed
from edgefolio.decision.cycle import Cycle
from edgefolio.decision.estimates.memory import exceeds_limit, is_short_of_memory, mebibytes, needed_bytes
from edgefolio.decision.state import retry_at, state_after_failure
from edgefolio.decision.timers import bounced, waiting_backoffs
from edgefolio.decision.types import MEMORY_PRESSURE, Decision, Reason, ServerState, State, VariantProfile

FAILURE_CAUSE = "most requests failed"

Outcome = tuple[Decision, State]


def serve_something_rule(cycle: Cycle) -> Decision | None:
    """An endpoint that serves nothing, a dead server or an unknown variant is brought to serve the right one."""
    observation = cycle.observation
    if observation.server is ServerState.DEAD:
        # A repair starts from an empty server: what is loaded goes with it.
        memory = observation.memory and replace(observation.memory, working_set_bytes=None)
        observation = replace(observation, active_variant=None, resident_variants=(), memory=memory)
        reason, why = Reason.SERVER_DEAD, "The server does not answer inference"
    elif observation.active_variant is None:
        reason, why = Reason.INITIAL, "Nothing is served yet"
    elif cycle.active is None:
        reason, why = Reason.UNKNOWN_ACTIVE_VARIANT, f"No profile knows the active {observation.active_variant}"
        observation = replace(observation, active_variant=None)
    else:
        return None
    fresh = replace(cycle, observation=observation)
    wanted = (cycle.objectives.pinned_variant, cycle.active.name if cycle.active else None)
    for name in wanted:
        found = fresh.assessment(name)
        if found is not None and found.servable:
            return fresh.switch(reason, f"{why}; {name} is loaded.", target=found.profile.name)
    choice = choose(fresh.assessments)
    if choice is not None:
        return fresh.switch(reason, f"{why}; {_why(fresh, choice)}.", target=choice.name)
    return _last_resort(fresh, reason, why)


def pin_rule(cycle: Cycle) -> Outcome | None:
    """A pinned variant is served and kept."""
    pinned, active = cycle.objectives.pinned_variant, _active(cycle).name
    if pinned is None:
        return None
    if pinned == active:
        return cycle.hold(Reason.PINNED, f"{pinned} is pinned and serves."), cycle.state
    found = cycle.assessment(pinned)
    if found is None or found.prediction.quarantined:
        fault = "no such variant exists" if found is None else "it is quarantined after failures"
        return cycle.hold(Reason.PINNED, f"{pinned} is pinned, but {fault}; {active} stays."), cycle.state
    if not found.servable:
        return _short_of_memory(cycle, found)
    return cycle.switch(Reason.PINNED, f"{pinned} is pinned.", target=pinned), cycle.state


def memory_rule(cycle: Cycle) -> Outcome | None:
    """More memory than the objective, the headroom or the node allows: a smaller one, ignoring dwell and budget."""
    active, maximum, memory = _active(cycle), cycle.objectives.max_memory_bytes, cycle.observation.memory
    headroom = float(cycle.switching.memory_headroom_percent)
    over_limit = exceeds_limit(memory, headroom_percent=headroom)
    over_objective = maximum is not None and needed_bytes(active) > maximum
    if not over_objective and not over_limit:
        return _pressure(cycle) if is_short_of_memory(cycle.observation) else None
    # What is left of the headroom may be used to get out of it.
    smaller = [
        entry
        for entry in cycle.assessed(headroom_percent=0.0 if over_limit else headroom)
        if needed_bytes(entry.profile) < needed_bytes(active)
    ]
    if not smaller and not over_objective:
        # The smallest serves already; what is too much is not the variant's. The other rules go on.
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
        message = f"{why}; {_why(cycle, choice)}."
        return cycle.switch(Reason.MEMORY_EXCEEDED, message, target=choice.name), bounced(cycle)
    willing = [entry for entry in smaller if not entry.prediction.quarantined]
    if willing:
        return _short_of_memory(cycle, min(willing, key=lambda entry: needed_bytes(entry.profile)))
    return cycle.hold(Reason.OBJECTIVES_NOT_MET, f"{why}, and no smaller variant can be taken."), cycle.state


def _pressure(cycle: Cycle) -> Outcome | None:
    """The node is short of memory: the smallest variant that is accurate enough.

    In one step, since the kubelet keeps the condition for minutes whatever is done about it: step by step the endpoint
    would load one variant after the other meanwhile. Nobody knows that this server is the cause, so that the accuracy
    minimum stays a floor.
    """
    active = _active(cycle)
    smaller = [
        entry
        for entry in cycle.assessments
        if needed_bytes(entry.profile) < needed_bytes(active)
        and entry.prediction.meets_accuracy
        and not entry.prediction.quarantined
    ]
    if not smaller:
        return None
    order = sorted(smaller, key=lambda entry: (needed_bytes(entry.profile), *speed(entry)))
    taken = next((entry.profile for entry in order if entry.servable), None)
    if taken is None:
        return _short_of_memory(cycle, order[0])
    message = (
        f"The node reports {MEMORY_PRESSURE} and {active.name} needs {mebibytes(needed_bytes(active))}; "
        f"{taken.name} needs {mebibytes(needed_bytes(taken))}."
    )
    return cycle.switch(Reason.MEMORY_EXCEEDED, message, target=taken.name), bounced(cycle)


def failures_rule(cycle: Cycle) -> Outcome | None:
    """Most requests fail for long: the variant is suspected, once; if its successor fails too, it was not the variant.

    Clients that send nonsense must not walk an endpoint through its whole portfolio.
    """
    found, since, active = cycle.measurement, cycle.state.failing_since, _active(cycle)
    if found is None or since is None:
        return None
    share = f"{found.failures} of {found.requests + found.failures} requests failed"
    age, needed = cycle.now - since, cycle.switching.down_after_seconds
    if age < needed:
        return cycle.hold(Reason.VIOLATION_TOO_SHORT, f"{share}, for {age:.1f} s of {needed} s."), cycle.state
    switched = cycle.state.last_switch_at
    if switched is not None and since <= switched:
        message = f"{share}, as they did before {active.name} was taken: the variant is not the cause."
        return cycle.hold(Reason.OBJECTIVES_NOT_MET, message), cycle.state
    choice = cycle.choice(profile.name for profile in cycle.profiles if profile.name != active.name)
    if choice is None:
        return cycle.hold(Reason.ALL_QUARANTINED, f"{share}, and no other variant can be taken."), cycle.state
    state = state_after_failure(
        bounced(cycle), variant=active.name, cause=FAILURE_CAUSE, now=cycle.now, switching=cycle.switching
    )
    message = f"{share}; {active.name} is quarantined, {_why(cycle, choice)}."
    return cycle.switch(Reason.FAILURES, message, target=choice.name), state


def accuracy_rule(cycle: Cycle) -> Outcome | None:
    """The active variant is less accurate than asked, and one nearer to it can be served."""
    active, minimum = _active(cycle), cycle.objectives.min_accuracy_percent
    found = cycle.assessment(active.name)
    if minimum is None or found is None or found.prediction.meets_accuracy:
        return None
    why = f"{active.name} has {active.accuracy_percent:.2f} % of at least {minimum:.4g} %"
    better = [entry for entry in cycle.assessments if entry.profile.accuracy_percent > active.accuracy_percent]
    choice = choose(cycle.assessments)
    if choice is not None and choice.assessment in better:
        if (limited := _limited(cycle, choice.name)) is not None:
            return limited
        message = f"{why}; {_why(cycle, choice)}."
        return cycle.switch(Reason.ACCURACY_BELOW_MINIMUM, message, target=choice.name), cycle.state
    blocked = _blocked_by_memory(better)
    if blocked is not None:
        return _short_of_memory(cycle, blocked)
    message = f"{why}, and no more accurate variant can be taken."
    return cycle.hold(Reason.OBJECTIVES_NOT_MET, message), cycle.state


def latency_rule(cycle: Cycle) -> Outcome | None:
    """Outside the latency objective, without a break and shown by enough requests: a faster variant."""
    found, state, active, switching = cycle.measurement, cycle.state, _active(cycle), cycle.switching
    budget, p95, since = latency_budget(cycle.objectives), cycle.p95_milliseconds, state.violation_since
    if found is None or budget is None or p95 is None or since is None or not cycle.violates_latency:
        return None
    age, seen = cycle.now - since, state.violation_requests
    what = f"p95 of {active.name} is {p95:.1f} ms of {budget:.1f} ms"
    if found.saturated:
        what += f", {found.in_flight:.1f} requests are in a saturated server"
    if age < switching.down_after_seconds or seen < switching.min_requests:
        message = (
            f"{what}, for {age:.1f} s of {switching.down_after_seconds} s and {seen:.0f} of "
            f"{switching.min_requests} requests."
        )
        return cycle.hold(Reason.VIOLATION_TOO_SHORT, message), state
    faster = [entry for entry in cycle.assessments if entry.profile.mean_milliseconds < active.mean_milliseconds]
    choice = cycle.choice([active.name, *(entry.profile.name for entry in faster)])
    if choice is None or choice.name == active.name:
        blocked = _blocked_by_memory(faster)
        if blocked is not None:
            return _short_of_memory(cycle, blocked)
        return cycle.hold(Reason.OBJECTIVES_NOT_MET, f"{what}, and no faster variant can be taken."), state
    if (limited := _limited(cycle, choice.name)) is not None:
        return limited
    reason = Reason.SATURATED if found.saturated else Reason.LATENCY_VIOLATED
    message = f"{what}, for {age:.0f} s; {_why(cycle, choice)}."
    return cycle.switch(reason, message, target=choice.name), bounced(cycle)


#: In this order, once the metrics are believed; :func:`upgrade_rule` comes last and always decides.
RULES = (failures_rule, accuracy_rule, latency_rule)


def upgrade_rule(cycle: Cycle) -> Outcome:
    """Inside the objectives: the most accurate variant that has fitted, with margin, for long enough."""
    active, state, switching = _active(cycle), cycle.state, cycle.switching
    if not state.fitting:
        return _calm(cycle), state
    ready = [entry for entry in state.fitting if cycle.now - entry.since >= switching.up_after_seconds]
    front = max(state.fitting, key=lambda entry: _rank(cycle, entry.variant))
    due = front.since + switching.up_after_seconds - cycle.now
    # A step to a lesser one now would keep the best one out for a dwell time: if it is due within that, wait for it.
    if not ready or 0 < due <= switching.min_dwell_seconds:
        age = cycle.now - front.since
        message = f"{front.variant} has fitted for {age:.0f} s of {switching.up_after_seconds} s; {active.name} serves."
        return cycle.hold(Reason.CALM_TOO_SHORT, message, target=front.variant), state
    best = max(ready, key=lambda entry: _rank(cycle, entry.variant))
    age = cycle.now - best.since
    # The last switch of the budget is kept for the way down: an upgrade that bounces must not be stuck.
    if (limited := _limited(cycle, best.variant, reserve=min(1, switching.max_switches_per_hour - 1))) is not None:
        return limited
    if (busy := _node_busy(cycle)) is not None:
        message = f"{best.variant} has fitted for {age:.0f} s, but {busy}; {active.name} serves."
        return cycle.hold(Reason.NODE_BUSY, message, target=best.variant), state
    chosen = cycle.assessment(best.variant)
    assert chosen is not None
    message = (
        f"{best.variant} has fitted for {age:.0f} s; {_why(cycle, Choice(assessment=chosen, objectives_met=True))}."
    )
    decision = cycle.switch(Reason.MORE_ACCURATE_FITS, message, target=best.variant)
    return decision, replace(state, upgraded_variant=best.variant, upgraded_at=cycle.now)


def _node_busy(cycle: Cycle) -> str | None:
    """What speaks against asking more of the node; ``None`` if nothing does, or nothing is known of it."""
    node, most = cycle.observation.node, cycle.switching.node_busy_percent
    if node is None:
        return None
    if node.pressures:
        return f"the node reports {', '.join(node.pressures)}"
    if node.others_cpu_percent is not None and node.others_cpu_percent > most:
        return f"others use {node.others_cpu_percent:.0f} % of the node's processors (at most {most} %)"
    return None


def _calm(cycle: Cycle) -> Decision:
    """Nothing is due: say what keeps the more accurate variants out, or that all is well."""
    active, budget = _active(cycle), latency_budget(cycle.objectives)
    above = [entry for entry in cycle.assessments if entry.profile.rank > active.rank]
    fitting = [entry for entry in above if entry.meets_all]
    waiting = waiting_backoffs(cycle)
    if waiting and any(entry.servable for entry in fitting):
        last = max(waiting, key=lambda entry: entry.until)
        message = (
            f"{last.variant} had to be left soon after it was taken ({last.bounces} times); "
            f"it is tried again in {last.until - cycle.now:.0f} s."
        )
        return cycle.hold(Reason.CALM_TOO_SHORT, message, target=None)
    blocked = _blocked_by_memory(fitting)
    if blocked is not None:
        return _short_of_memory(cycle, blocked)[0]
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
        return cycle.hold(Reason.DEAD_BAND, message)
    p95 = cycle.p95_milliseconds
    shown = "" if p95 is None else f" at p95 {p95:.1f} ms" + ("" if budget is None else f" of {budget:.1f} ms")
    if cycle.objectives_met is False:
        return cycle.hold(Reason.OBJECTIVES_NOT_MET, f"{active.name} serves{shown}, and no other variant is right.")
    rest = "no more accurate one fits" if above else "it is the most accurate one"
    return cycle.hold(Reason.OBJECTIVES_MET, f"{active.name} serves{shown}; {rest}.")


def _limited(cycle: Cycle, target: str, *, reserve: int = 0) -> Outcome | None:
    """Dwell time and budget (less ``reserve``), which bind every switch that is no emergency."""
    switching, since = cycle.switching, cycle.since_switch
    if since is not None and since < switching.min_dwell_seconds:
        message = (
            f"{target} is due, but the last switch was {since:.1f} s ago, of at least {switching.min_dwell_seconds} s."
        )
        return cycle.hold(Reason.MIN_DWELL, message, target=target), cycle.state
    spent = len(cycle.state.recent_switches)
    if spent + reserve >= switching.max_switches_per_hour:
        kept = " and the last is kept for the way down" if reserve else ""
        message = f"{target} is due, but {spent} of {switching.max_switches_per_hour} switches an hour are spent{kept}."
        return cycle.hold(Reason.SWITCH_BUDGET_SPENT, message, target=target), cycle.state
    return None


def _last_resort(cycle: Cycle, reason: Reason, why: str) -> Decision:
    """Nothing can be chosen. An endpoint that serves nothing tries quarantined variants sooner than others would."""
    possible = [
        entry
        for entry in cycle.assessments
        if entry.prediction.fits_memory and entry.prediction.fits_memory_during_switch
    ]
    if not possible:
        smallest = min(cycle.assessments, key=lambda entry: needed_bytes(entry.profile))
        return _short_of_memory(cycle, smallest)[0]
    if reason is Reason.UNKNOWN_ACTIVE_VARIANT:
        return cycle.hold(Reason.ALL_QUARANTINED, f"{why}, and all others are quarantined.")
    names = {entry.profile.name for entry in possible}
    waiting = [entry for entry in cycle.state.quarantined if entry.variant in names]
    first = min(waiting, key=lambda entry: retry_at(entry, cycle.switching))
    due = retry_at(first, cycle.switching) - cycle.now
    if due > 0:
        message = f"{why}, and all variants are quarantined; {first.variant} is tried again in {due:.0f} s."
        return cycle.hold(Reason.ALL_QUARANTINED, message, target=first.variant)
    message = f"{why}, and all variants are quarantined; {first.variant} is tried again ({first.cause})."
    return cycle.switch(reason, message, target=first.variant)


def _short_of_memory(cycle: Cycle, entry: Assessment) -> Outcome:
    message = f"{entry.profile.name} is due, but there is not the memory to load it: {entry.prediction.verdict}."
    return cycle.hold(Reason.INSUFFICIENT_SWITCH_MEMORY, message, target=entry.profile.name), cycle.state


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


def _why(cycle: Cycle, choice: Choice) -> str:
    p95, budget = choice.assessment.prediction.p95_milliseconds, latency_budget(cycle.objectives)
    shown = "it cannot keep up either" if p95 is None else f"predicted p95 {p95:.1f} ms"
    if p95 is not None and budget is not None:
        shown += f" of {budget:.1f} ms"
    if choice.objectives_met:
        return f"{choice.name} is the most accurate that fits ({shown})"
    return f"no variant meets all objectives, {choice.name} comes nearest ({shown})"


def _active(cycle: Cycle) -> VariantProfile:
    active = cycle.active
    assert active is not None
    return active


def _rank(cycle: Cycle, name: str) -> int:
    profile = cycle.profile(name)
    return 0 if profile is None else profile.rank
