"""Timers: how long a violation, failures and fits have lasted, and the back-off of upgrades that bounced."""

from __future__ import annotations

import math
from dataclasses import replace

from edgefolio.decision.context import RuleContext
from edgefolio.decision.state import LONGEST_BACKOFF_SECONDS
from edgefolio.decision.types import Descent, FittingVariant, State, UpgradeBackoff, VariantProfile

#: From this share of failed requests on, the variant is suspected; a few failures are the clients' own.
FAILURE_SHARE = 0.5


def update_timers(context: RuleContext, *, elapsed: float) -> State:
    """The state with all timers updated to this cycle; ``elapsed`` seconds after the last believed one.

    A cycle without a measurement leaves them as they are.
    """
    state, found = context.state, context.measurement
    if found is None or context.active is None:
        return state
    total = found.requests + found.failures
    failing_since = state.failing_since
    if total >= context.switching.min_requests and found.failures >= FAILURE_SHARE * total:
        failing_since = context.now if failing_since is None else failing_since
    elif total:
        # Successes clear the suspicion; silence does not.
        failing_since = None
    if not context.violates_latency:
        calm = _calm_since(context) if state.calm_since is None else state.calm_since
        state = replace(state, violation_since=None, violation_requests=0.0, fitting=_fitting(context), calm_since=calm)
    elif state.violation_since is None:
        state = replace(state, violation_since=context.now, violation_requests=float(found.requests), fitting=())
        state = replace(state, calm_since=None)
    else:
        # Windows overlap: only what arrived since the last cycle is new evidence.
        seen = state.violation_requests + min(float(found.requests), found.arrival_rate * elapsed)
        state = replace(state, violation_requests=seen, fitting=())
    return _end_probation(context, replace(state, failing_since=failing_since))


def record_bounce(context: RuleContext, *, always: bool = False) -> State:
    """The state when the active variant must be left: a recent upgrade has bounced, so the next try waits longer.

    ``always`` says that it waits even if it served for long.

    The wait doubles with each bounce, from ``upAfterSeconds`` (``minDwellSeconds`` where something is resident: the way
    down costs milliseconds then) to an hour. Whether the clients are a closed loop is forgotten.
    """
    state, switching, active = context.state, context.switching, context.active
    if active is None or (not always and (state.upgraded_variant != active.name or state.upgraded_at is None)):
        return state
    before = next((entry.bounces for entry in state.upgrade_backoffs if entry.variant == active.name), 0)
    first = switching.min_dwell_seconds if context.standbys else switching.up_after_seconds
    wait = min(max(1, first) * 2.0 ** min(before, 30), LONGEST_BACKOFF_SECONDS)
    others = tuple(entry for entry in state.upgrade_backoffs if entry.variant != active.name)
    record = UpgradeBackoff(variant=active.name, until=context.now + wait, bounces=before + 1)
    return replace(
        state, upgraded_variant=None, upgraded_at=None, upgrade_backoffs=(*others, record), closed_loop=False
    )


def descended(context: RuleContext, state: State) -> State:
    """``state`` after a step down to what was resident; of several steps, the way back leads to where they began."""
    active, before = context.known_active, state.descent
    first = context.profile(None if before is None else before.variant)
    left = first if first is not None and context.pace(first) > context.pace(active) else active
    return replace(state, descent=Descent(variant=left.name, at=context.now))


def is_on_the_way_back(context: RuleContext, variant: str) -> bool:
    """Whether ``variant`` is faster than the one that was left for what was resident."""
    descent = context.state.descent
    left, chosen = context.profile(None if descent is None else descent.variant), context.profile(variant)
    return left is not None and chosen is not None and context.pace(chosen) < context.pace(left)


def risen(context: RuleContext, variant: str) -> State:
    """The state after a step up to ``variant``; one on the way back leaves the rest of it as short."""
    descent = context.state.descent if is_on_the_way_back(context, variant) else None
    return replace(context.state, upgraded_variant=variant, upgraded_at=context.now, descent=descent)


def entered(context: RuleContext, state: State, variant: str) -> State:
    """``state`` after a switch to ``variant``: leaving a split soon is a bounce, whichever way led to it."""
    profile = context.profile(variant)
    if profile is None or profile.split is None:
        return state
    return replace(state, upgraded_variant=variant, upgraded_at=context.now)


def is_waiting(context: RuleContext, profile: VariantProfile) -> bool:
    """Whether ``profile`` is a split that had to be left lately, or is as slow as one: it must not be taken yet."""
    if profile.split is None:
        return False
    left = [context.profile(entry.variant) for entry in waiting_backoffs(context)]
    return any(
        entry is not None and entry.split is not None and context.pace(profile) >= context.pace(entry) for entry in left
    )


def waiting_backoffs(context: RuleContext) -> tuple[UpgradeBackoff, ...]:
    """Back-offs of upgrades that have not run out yet."""
    return tuple(entry for entry in context.state.upgrade_backoffs if entry.until > context.now)


def _calm_since(context: RuleContext) -> float:
    """Since when it has been calm, now that it is: for the whole window, unless a violation has just ended.

    A window begins at the last switch at the earliest. Where nothing was measured before, what it holds was calm too.
    """
    state, traffic = context.state, context.observation.traffic
    if state.violation_since is not None or traffic is None or not 0 < traffic.seconds < math.inf:
        return context.now
    since = context.since_switch
    return max(
        0.0, context.now - min(traffic.seconds, context.switching.window_seconds, math.inf if since is None else since)
    )


def _fitting(context: RuleContext) -> tuple[FittingVariant, ...]:
    """More accurate variants that fit now, each with the time since when; without those in back-off."""
    active = context.active
    assert active is not None
    known = {entry.variant: entry.since for entry in context.state.fitting}
    barred = [
        context.pace(profile)
        for entry in waiting_backoffs(context)
        # What the peers of a split do says nothing of variants that need none.
        if (profile := context.profile(entry.variant)) is not None and profile.split is None
    ]
    return tuple(
        FittingVariant(variant=entry.profile.name, since=known.get(entry.profile.name, context.now))
        for entry in context.assessments
        if entry.profile.rank > active.rank
        and entry.meets_all
        and entry.servable
        # Any variant as slow as one that bounced would bounce too.
        and not any(context.pace(entry.profile) >= milliseconds for milliseconds in barred)
        and not is_waiting(context, entry.profile)
    )


def _probation_seconds(context: RuleContext) -> float:
    """How long a step up must hold for it to be none that bounced; less where leaving it costs milliseconds."""
    if context.standbys:
        return 2.0 * context.switching.min_dwell_seconds
    return 2.0 * context.switching.up_after_seconds + context.switching.min_dwell_seconds


def _end_probation(context: RuleContext, state: State) -> State:
    """The state without the back-off of an upgraded variant that outlived its probation."""
    if state.upgraded_at is None or context.now - state.upgraded_at <= _probation_seconds(context):
        return state
    kept = tuple(entry for entry in state.upgrade_backoffs if entry.variant != state.upgraded_variant)
    return replace(state, upgraded_variant=None, upgraded_at=None, upgrade_backoffs=kept)
