"""The warm standby: the further variant that stays resident beside the active one, for the way down.

Leaving a variant for a resident one takes milliseconds; loading one takes seconds just when the node has none to spare.
The standby is the variant that the tiers of :mod:`.choice` would give if the node were slower by a factor: the largest
compute factor met lately against the present one, and at least :data:`LEAST_SLOWDOWN`. Variants are ordered by rank, so
a standby must have a lower one than the active variant: Triton sends unversioned requests to the highest version.

It is loaded in calm only, stays while anything is in doubt, and is the first to go when memory is short.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgefolio.decision.choice import Assessment, assess, choose, latency_budget
from edgefolio.decision.context import RuleContext
from edgefolio.decision.estimates.memory import (
    exceeds_limit,
    is_room_for_one,
    is_short_of_memory,
    mebibytes,
    memory_bounds,
    needed_bytes,
)
from edgefolio.decision.evidence import is_contended
from edgefolio.decision.state import is_quarantined
from edgefolio.decision.types import (
    MEMORY_PRESSURE,
    Action,
    Decision,
    Standby,
    StandbyReason,
    State,
    VariantProfile,
)

#: The node is assumed to become at least this much slower ...
LEAST_SLOWDOWN = 2.0
#: ... and at most this much: beyond it nothing but the smallest variant would ever be kept.
MOST_SLOWDOWN = 8.0
#: What was met counts half as much after this time.
_SLOWEST_HALF_LIFE_SECONDS = 6 * 3600.0


def remember_slowest(state: State, *, now: float) -> State:
    """``state`` with the largest compute factor met, which decays towards the present one."""
    elapsed = 0.0 if state.slowest_updated_at is None else max(0.0, now - state.slowest_updated_at)
    kept = 2.0 ** (-elapsed / _SLOWEST_HALF_LIFE_SECONDS)
    decayed = state.compute_factor + (state.slowest_factor - state.compute_factor) * kept
    return replace(state, slowest_factor=max(state.compute_factor, decayed), slowest_updated_at=now)


def slowdown(state: State) -> float:
    """The factor by which the node may become slower than it is now."""
    met = state.slowest_factor / state.compute_factor if state.compute_factor > 0 else LEAST_SLOWDOWN
    return min(MOST_SLOWDOWN, max(LEAST_SLOWDOWN, met))


def plan_standby(context: RuleContext, decision: Decision) -> Standby:
    """What is to be resident beside the served variant once ``decision`` is carried out."""
    if decision.action is Action.SWITCH:
        return _during_switch(context, decision)
    if (none := _ruled_out(context)) is not None:
        return none
    disturbed = _disturbance(context)
    return standby_in_calm(context) if disturbed is None else _kept(_resident(context), disturbed)


def standby_in_calm(context: RuleContext) -> Standby:
    """The right standby for the active variant, whether or not it may be loaded now."""
    if (none := _ruled_out(context)) is not None:
        return none
    active, kept = context.known_active, _resident(context)
    factor = slowdown(context.state)
    stressed = _under_stress(context, _below(context, active), factor=factor)
    choice = choose([entry for entry in stressed if _may_be_taken(entry)])
    if choice is None:
        return _without(context, active)
    name = choice.name
    if kept is not None and (kept.name == name or _does(kept, stressed) or not choice.objectives_met):
        # A standby that does is not exchanged for a better one: each exchange is a load.
        name = kept.name
    if kept is not None and kept.name == name:
        return Standby(variant=name, reason=StandbyReason.RESIDENT, message=_what(name, factor))
    return Standby(
        variant=name,
        reason=StandbyReason.LOAD,
        message=_what(name, factor),
        is_scarce=is_room_for_one(context.observation.memory, choice.assessment.profile),
    )


def _ruled_out(context: RuleContext) -> Standby | None:
    """Why there is no standby whatever the conditions, or must be none any more; ``None`` if there may be one."""
    objectives = context.objectives
    if context.active is None:
        return _none(StandbyReason.NOT_CALM, "Nothing serves yet.")
    if context.active.split is not None:
        return _beside_shard(context, context.active)
    if (why := shortage(context)) is not None:
        return _none(StandbyReason.INSUFFICIENT_STANDBY_MEMORY, f"{why[0].upper()}{why[1:]}.")
    if context.switching.standby == "None":
        return _none(StandbyReason.NOT_ASKED, "switching.standby is None.")
    if latency_budget(objectives) is None:
        return _none(StandbyReason.NOT_ASKED, "There is no latency objective to fall back for.")
    if objectives.pinned_variant is not None and not objectives.pin_is_order:
        return _none(StandbyReason.NOT_ASKED, f"{objectives.pinned_variant} is pinned.")
    return None


def _resident(context: RuleContext) -> VariantProfile | None:
    """The standby that is loaded now."""
    active = context.active
    if active is None:
        return None
    below = [entry for entry in context.standbys if entry.rank < active.rank and entry.split is None]
    return _best(below, context)


def shortage(context: RuleContext) -> str | None:
    """Why the resident standby must go for want of memory; ``None`` if it need not, or there is none."""
    active, standbys = context.active, context.standbys
    if active is None or not standbys:
        return None
    maximum, memory = context.objectives.max_memory_bytes, context.observation.memory
    together = needed_bytes(active) + sum(map(needed_bytes, standbys))
    if maximum is not None and together > maximum:
        return f"active variant and standby need {mebibytes(together)} of at most {mebibytes(maximum)}"
    if memory is not None and exceeds_limit(memory, headroom_percent=float(context.switching.memory_headroom_percent)):
        return f"the server uses {mebibytes(memory.working_set_bytes)} of {mebibytes(memory.limit_bytes)}"
    return f"the node reports {MEMORY_PRESSURE}" if is_short_of_memory(context.observation) else None


def _during_switch(context: RuleContext, decision: Decision) -> Standby:
    """What stays of the resident variants: it must be below the target, and leave it room to be loaded."""
    target = context.profile(decision.target)
    if target is None or context.active is None or context.switching.standby == "None":
        return _none(StandbyReason.NOT_ASKED, "Nothing is kept.")
    if target.split is not None:
        return _beside_shard(context, target)
    resident = (*context.standbys, context.active)
    below = [profile for profile in resident if profile.rank < target.rank and profile.split is None]
    bounds = memory_bounds(
        context.observation,
        context.loaded,
        headroom_percent=float(context.switching.memory_headroom_percent),
    )
    kept = _best(below, context)
    if kept is None:
        return _none(StandbyReason.NOTHING_FASTER, f"Nothing faster than {target.name} is resident.")
    maximum = context.objectives.max_memory_bytes
    crowded = maximum is not None and needed_bytes(target) + needed_bytes(kept) > maximum
    if crowded or shortage(context) is not None or not bounds.fits_beside_all(target):
        return _none(
            StandbyReason.INSUFFICIENT_STANDBY_MEMORY, f"{target.name} needs the memory that {kept.name} would take."
        )
    return Standby(variant=kept.name, reason=StandbyReason.RESIDENT, message=f"{kept.name} stays resident.")


def _best(profiles: Iterable[VariantProfile], context: RuleContext) -> VariantProfile | None:
    """The one of the resident ``profiles`` that would be taken on the way down."""
    stressed = _under_stress(context, profiles, factor=slowdown(context.state))
    choice = choose([entry for entry in stressed if _may_be_taken(entry)])
    return None if choice is None else choice.assessment.profile


def _below(context: RuleContext, active: VariantProfile) -> list[VariantProfile]:
    """The variants that could stand by for ``active``."""
    return [
        profile
        for profile in context.profiles
        if profile.rank < active.rank
        and profile.mean_milliseconds < active.mean_milliseconds
        # A shard would be loaded for nothing while its set does not serve.
        and profile.split is None
    ]


def _under_stress(context: RuleContext, profiles: Iterable[VariantProfile], *, factor: float) -> list[Assessment]:
    """Assessments of ``profiles`` on a node ``factor`` times slower, as standby beside the active variant."""
    bounds = memory_bounds(
        context.observation,
        context.loaded,
        headroom_percent=float(context.switching.memory_headroom_percent),
    )
    # A standby must find room beside all that is loaded, not in the place of it; another standby makes room for it.
    others = sum(profile.memory_steady_bytes for profile in context.standbys)
    beside = None if bounds.beside_bytes is None else bounds.beside_bytes + others
    bounds = replace(bounds, extra_bytes=beside)
    maximum, active = context.objectives.max_memory_bytes, context.active
    left = None if maximum is None or active is None else maximum - needed_bytes(active)
    return [
        assess(
            profile,
            conditions=replace(conditions, compute_factor=min(conditions.compute_factor * factor, _LARGEST_FACTOR)),
            objectives=replace(context.objectives, max_memory_bytes=left),
            margin_percent=float(context.switching.down_margin_percent),
            bounds=bounds,
            quarantined=is_quarantined(context.state, profile.name, context.now),
        )
        for profile in profiles
        for conditions in (context.conditions_for(profile),)
    ]


#: Beyond this nothing can be predicted.
_LARGEST_FACTOR = 1e6


def _may_be_taken(entry: Assessment) -> bool:
    """Whether the way down could lead to it: the accuracy minimum and the memory objective are floors."""
    return entry.prediction.meets_accuracy and entry.within_memory_objective


def _does(profile: VariantProfile, stressed: Iterable[Assessment]) -> bool:
    """Whether ``profile`` would meet the objectives under stress."""
    return any(entry.profile.name == profile.name and entry.meets_all for entry in stressed)


def _disturbance(context: RuleContext) -> str | None:
    """Why nothing is loaded or unloaded now."""
    state, switching = context.state, context.switching
    if switching.policy != "Auto":
        return f"The policy is {switching.policy}."
    if context.measurement is None:
        return "The endpoint's metrics are missing or not believed yet."
    if state.calm_since is None:
        return "The latency objective is violated."
    calm, needed = context.now - state.calm_since, max(switching.settle_seconds, switching.down_after_seconds)
    if calm < needed:
        return f"The endpoint has been calm for {calm:.0f} s of {needed} s."
    if calm < switching.up_after_seconds and is_contended(context.observation.contention):
        # Where that never ends it is the node's ordinary state, and the standby is needed all the more.
        return f"Others want the server's processors, and it has been calm for {calm:.0f} s alone."
    if state.latency_test.readings:
        return "The latest readings are above the latency objective."
    released = state.standby_released_at
    if released is not None and context.now - released < switching.quarantine_seconds:
        return "A standby was unloaded for want of memory lately."
    busy = context.node_busy
    return None if busy is None else f"Nothing is loaded while {busy}."


def _beside_shard(context: RuleContext, split: VariantProfile) -> Standby:
    """No standby by itself: the fallback in the shard's process is it, and two copies would count twice."""
    found = context.assessment(split.name)
    name = "its fallback" if found is None or found.fallback is None else found.fallback.variant
    return _none(StandbyReason.BESIDE_SHARD, f"{name} stands by in the process of the shard of {split.name}.")


def _without(context: RuleContext, active: VariantProfile) -> Standby:
    """Why no variant can stand by for ``active``."""
    minimum = context.objectives.min_accuracy_percent
    below = [entry for entry in _below(context, active) if minimum is None or entry.accuracy_percent >= minimum]
    if not below:
        floor = "" if minimum is None else " and accurate enough"
        return _none(StandbyReason.NOTHING_FASTER, f"No variant is faster than {active.name}{floor}.")
    smallest = min(below, key=needed_bytes)
    memory = context.observation.memory
    maximum = context.objectives.max_memory_bytes
    figures = f"{smallest.name} needs {mebibytes(needed_bytes(smallest))} beside {active.name}"
    if maximum is not None:
        figures += f", of at most {mebibytes(maximum)} together"
    if memory is not None and memory.limit_bytes is not None:
        figures += f"; the server uses {mebibytes(memory.working_set_bytes)} of {mebibytes(memory.limit_bytes)}"
    if memory is not None and memory.node_available_bytes is not None:
        figures += f"; the node has {mebibytes(memory.node_available_bytes)} left"
    return _none(StandbyReason.INSUFFICIENT_STANDBY_MEMORY, f"{figures}.")


def _kept(profile: VariantProfile | None, message: str) -> Standby:
    if profile is None:
        return _none(StandbyReason.NOT_CALM, message)
    return Standby(variant=profile.name, reason=StandbyReason.RESIDENT, message=f"{profile.name} stays. {message}")


def _none(reason: StandbyReason, message: str) -> Standby:
    return Standby(variant=None, reason=reason, message=message)


def _what(name: str, factor: float) -> str:
    return f"{name} would be taken if the node became {factor:.1f} times slower."
