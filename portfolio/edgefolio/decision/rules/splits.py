"""Rules about splits, one function each: lost peers, a fallback that would be late, a split that is due and barred.

A split whose peers are lost keeps serving by its fallback, so nothing is urgent: it is left for a variant of one node
after ``downAfterSeconds``, and waits as an upgrade that bounced does. Dwell time and budget bind as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgefolio.decision.choice import Assessment, Choice, choose
from edgefolio.decision.context import Outcome, RuleContext
from edgefolio.decision.estimates.peers import lost, served_accuracy
from edgefolio.decision.rules.limits import limited
from edgefolio.decision.rules.timers import record_bounce
from edgefolio.decision.splits.assessing import loaded_fallback
from edgefolio.decision.types import Decision, Reason, State


def with_split_timers(context: RuleContext, state: State) -> State:
    """``state`` with the timers of a split that serves updated to this cycle."""
    active = context.active
    if active is None or active.split is None or context.measurement is None:
        return replace(state, peers_lost_since=None, late_fallback_since=None)
    lost_since, late_since = state.peers_lost_since, state.late_fallback_since
    is_lost = lost_peers(context) is not None
    is_late = not is_lost and _falls_back_late(context)
    return replace(
        state,
        peers_lost_since=(context.now if lost_since is None else lost_since) if is_lost else None,
        late_fallback_since=(context.now if late_since is None else late_since) if is_late else None,
    )


def lost_peers(context: RuleContext) -> str | None:
    """Why the peers of the split that serves are as good as lost, as a clause; ``None`` if they are not."""
    active, workers = context.known_active, context.observation.worker_set
    if active.split is None:
        return None
    return lost(
        active,
        workers,
        stale_after_seconds=float(context.switching.stale_after_seconds),
        min_requests=context.switching.min_requests,
        min_accuracy_percent=context.objectives.min_accuracy_percent,
        served_accuracy_percent=accuracy_as_served(context),
    )


def accuracy_as_served(context: RuleContext) -> float:
    """The accuracy in percent of what the active variant really answered, answers of its fallback included."""
    active, workers = context.known_active, context.observation.worker_set
    return served_accuracy(active, workers, context.profile(loaded_fallback(workers, active.name)))


def peers_rule(context: RuleContext) -> Outcome | None:
    """The peers of the split that serves are lost: the best variant of one node, after ``downAfterSeconds``."""
    active, since, switching = context.known_active, context.state.peers_lost_since, context.switching
    why = None if since is None else lost_peers(context)
    if since is None or why is None:
        return None
    age, fallback = context.now - since, loaded_fallback(context.observation.worker_set, active.name)
    what = f"{active.name} is answered by {fallback or 'its fallback'}: {why}, for {age:.1f} s"
    if age < switching.down_after_seconds:
        message = f"{what} of {switching.down_after_seconds} s."
        return context.hold(Reason.PEERS_NOT_READY, message), context.state
    choice = _alone(context)
    if choice is None:
        blocked = [entry for entry in context.assessments if entry.profile.split is None]
        blocked = [entry for entry in blocked if not entry.prediction.quarantined and entry.prediction.fits_memory]
        if blocked:
            return context.short_of_memory(max(blocked, key=lambda entry: entry.profile.rank)), context.state
        return context.hold(Reason.PEERS_NOT_READY, f"{what}, and no variant of one node can be taken."), context.state
    if (held := limited(context, choice.name)) is not None:
        return held
    decision = context.switch(Reason.PEERS_LOST, f"{what}; {context.clause(choice)}.", target=choice.name)
    return decision, record_bounce(context, always=True)


def late_fallback_rule(context: RuleContext) -> Outcome | None:
    """One node would meet the objectives and a lost peer of the split would break them: that one, in the end."""
    since, switching = context.state.late_fallback_since, context.switching
    if since is None or not _falls_back_late(context):
        return None
    choice = _alone(context)
    if choice is None or not choice.objectives_met or context.now - since < switching.up_after_seconds:
        return None
    if (held := limited(context, choice.name, reserve=min(1, switching.max_switches_per_hour - 1))) is not None:
        return held
    message = (
        f"{choice.name} has met the objectives on one node for {context.now - since:.0f} s, and a fallback of "
        f"{context.known_active.name} would not."
    )
    return context.switch(Reason.FALLS_BACK_LATE, message, target=choice.name), context.state


def barred_split(context: RuleContext, entries: Iterable[Assessment]) -> Decision | None:
    """The hold that says what bars the best split of ``entries`` that would do; ``None`` if no set is offered."""
    found = [
        entry
        for entry in entries
        if entry.bar is not None
        and entry.bar.yields
        and not entry.prediction.quarantined
        and entry.within_memory_objective
        and entry.prediction.meets_accuracy
        and (entry.prediction.meets_latency or entry.prediction.p95_milliseconds is None)
    ]
    best = max(found, key=lambda entry: entry.profile.rank, default=None)
    if best is None or best.bar is None:
        return None
    name = best.profile.name
    return context.hold(best.bar.reason, f"{name} would be due, but {best.bar.clause}.", target=name)


def _alone(context: RuleContext) -> Choice | None:
    """The choice among the variants that one node serves by itself."""
    return choose([entry for entry in context.assessments if entry.profile.split is None])


def _falls_back_late(context: RuleContext) -> bool:
    """Whether the split that serves would be barred for want of time to fall back."""
    found = context.assessment(context.known_active.name)
    return found is not None and found.prediction.barred is Reason.NO_TIME_TO_FALL_BACK
