"""What must hold for any input: total, never too fast, never what does not fit, monotone, deterministic."""

from __future__ import annotations

import math
from dataclasses import replace

from building import NOW, traffic
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import (
    objectives_of,
    observations,
    optional,
    positive,
    profiles_of,
    sane_profiles,
    states,
    switchings,
    times,
    whole,
    wild,
)

from edgefolio.decision import decide
from edgefolio.decision.estimates.memory import needed_bytes
from edgefolio.decision.types import (
    Action,
    Decision,
    MemoryState,
    Objectives,
    Observation,
    Reason,
    ServerState,
    State,
    VariantProfile,
)
from edgefolio.specification import Switching

#: Reasons of switches that dwell time and budget do not bind.
EMERGENCIES = {
    Reason.INITIAL,
    Reason.SERVER_DEAD,
    Reason.UNKNOWN_ACTIVE_VARIANT,
    Reason.MEMORY_EXCEEDED,
    Reason.FAILURES,
    Reason.PINNED,
}


@settings(max_examples=400)
@given(
    seen=observations(wild, st.integers(-5, 2**70)),
    objectives=objectives_of(wild),
    profiles=profiles_of(wild, wild),
    switching=switchings,
    state=states(wild),
    now=wild,
)
def test_it_decides_whatever_it_is_given(seen, objectives, profiles, switching, state, now) -> None:
    arguments = {
        "observation": seen,
        "objectives": objectives,
        "profiles": profiles,
        "switching": switching,
        "now": now,
    }
    decision, after = decide(**arguments, state=state, with_standby=True)
    again, after_again = decide(**arguments, state=state, with_standby=True)
    assert (repr(decision), repr(after)) == (repr(again), repr(after_again))
    assert decision.message.endswith(".")
    assert "\n" not in decision.message
    assert len(decision.message) < 400
    if decision.action is Action.SWITCH:
        assert decision.target in {profile.name for profile in profiles}
    # And what it leaves behind is something to go on with.
    decide(**{**arguments, "now": 5.0}, state=after)


@settings(max_examples=300)
@given(
    seen=observations(positive, whole),
    objectives=objectives_of(positive),
    profiles=sane_profiles,
    switching=switchings,
    state=states(times),
)
def test_a_switch_is_never_too_soon_nor_to_what_must_not_be_taken(seen, objectives, profiles, switching, state) -> None:
    decision, _ = decide(
        observation=seen,
        objectives=objectives,
        profiles=profiles,
        switching=switching,
        state=state,
        now=NOW,
        with_standby=True,
    )
    if decision.action is Action.HOLD:
        return
    target = next(profile for profile in profiles if profile.name == decision.target)
    dead = seen.server is ServerState.DEAD
    assert switching.policy == "Auto" or decision.reason in (Reason.INITIAL, Reason.SERVER_DEAD)
    if decision.reason not in EMERGENCIES:
        last = state.last_switch_at
        # A resident variant need not dwell on the way down: nothing is loaded for it.
        descends = target.name in seen.resident_variants and decision.reason in (
            Reason.LATENCY_VIOLATED,
            Reason.SATURATED,
        )
        assert last is None or descends or NOW - last >= switching.min_dwell_seconds
        recent = [time for time in state.recent_switches if NOW - time < 3600]
        assert len(recent) < switching.max_switches_per_hour
        assert seen.traffic is not None
        assert seen.traffic.age_seconds <= switching.stale_after_seconds
    if decision.reason not in (Reason.INITIAL, Reason.SERVER_DEAD):
        assert not any(
            entry.variant == target.name and min(entry.until, NOW + switching.quarantine_seconds) > NOW
            for entry in state.quarantined
        )
    if not dead:
        assert decision.standby is not None
        standbys = [profile for profile in profiles if profile.name in seen.resident_variants]
        released = [profile for profile in standbys if seen.active_variant not in (None, profile.name)]
        freed = 0 if decision.standby.variant else sum(profile.memory_steady_bytes for profile in released)
        assert fits_beside(target, seen, freed=freed)
    if decision.reason is Reason.MORE_ACCURATE_FITS:
        active = next(profile for profile in profiles if profile.name == seen.active_variant)
        assert target.rank > active.rank
        since = [min(entry.since, NOW) for entry in state.fitting if entry.variant == target.name]
        assert switching.up_after_seconds == 0 or NOW - max(since) >= switching.up_after_seconds
    if decision.reason in (Reason.LATENCY_VIOLATED, Reason.SATURATED):
        active = next(profile for profile in profiles if profile.name == seen.active_variant)
        assert target.mean_milliseconds < active.mean_milliseconds
        assert switching.down_after_seconds == 0 or state.violation_since is not None


def fits_beside(target: VariantProfile, seen: Observation, *, freed: int = 0) -> bool:
    """The bound of the physical memory, without any headroom, worked out on its own; a standby leaves ``freed``."""
    if seen.memory is None or target.name in (*seen.resident_variants, seen.active_variant):
        return True
    needed = needed_bytes(target) + max(0, seen.memory.shared_memory_bytes or 0) - freed
    limit, used, node = seen.memory.limit_bytes, seen.memory.working_set_bytes, seen.memory.node_available_bytes
    reserved = seen.node.reserved_bytes if seen.node is not None else 0
    return (limit is None or (used or 0) + needed <= limit) and (node is None or reserved + needed <= node)


@settings(max_examples=300)
@given(
    profiles=sane_profiles,
    objectives=objectives_of(st.floats(0.1, 1e4)),
    factor=st.floats(0.1, 20),
    rate=st.floats(0, 500),
    limit=optional(whole),
    change=st.sampled_from(["latency", "accuracy", "memory"]),
    tighter=st.floats(0, 1),
)
def test_the_choice_is_monotone_in_each_objective(profiles, objectives, factor, rate, limit, change, tighter) -> None:
    loose = replace(objectives, pinned_variant=None, network_latency_milliseconds=0.0)
    if change == "latency":
        base = loose.latency_p95_milliseconds or 1e4
        tight = replace(loose, latency_p95_milliseconds=base * tighter)
    elif change == "accuracy":
        base = loose.min_accuracy_percent or 0.0
        tight = replace(loose, min_accuracy_percent=base + 100 * tighter)
    else:
        bytes_before = 10**12 if loose.max_memory_bytes is None else loose.max_memory_bytes
        tight = replace(loose, max_memory_bytes=int(bytes_before * tighter))
    first = chosen(profiles, loose, factor=factor, rate=rate, limit=limit)
    second = chosen(profiles, tight, factor=factor, rate=rate, limit=limit)
    assume(first is not None)
    assert second is not None
    decision, before, after = first[0], first[1], second[1]
    if change == "latency":
        slow = {entry.variant: entry.p95_milliseconds or math.inf for entry in decision.predictions}
        assert slow[after.name] <= slow[before.name]
    elif change == "accuracy":
        assert after.accuracy_percent >= before.accuracy_percent
    else:
        assert needed_bytes(after) <= needed_bytes(before)


def chosen(
    profiles: tuple[VariantProfile, ...], objectives: Objectives, *, factor: float, rate: float, limit: int | None
) -> tuple[Decision, VariantProfile] | None:
    memory = MemoryState(limit_bytes=limit, working_set_bytes=0, node_available_bytes=None, age_seconds=0)
    decision, _ = decide(
        observation=Observation(active_variant=None, resident_variants=(), server=ServerState.SERVING, memory=memory),
        objectives=objectives,
        profiles=profiles,
        switching=Switching(),
        state=State(compute_factor=factor, arrival_rate=rate),
        now=NOW,
    )
    if decision.action is Action.HOLD:
        assert decision.reason is Reason.INSUFFICIENT_SWITCH_MEMORY
        return None
    return decision, next(profile for profile in profiles if profile.name == decision.target)


@settings(max_examples=200)
@given(
    seen=observations(positive, whole),
    objectives=objectives_of(positive),
    profiles=sane_profiles,
    switching=switchings,
    state=states(times),
    missing=st.sampled_from(["none", "stale", "unknown server", "nonsense"]),
)
def test_missing_data_holds(seen, objectives, profiles, switching, state, missing) -> None:
    # But for an emergency of memory, which waits for no counters.
    node = seen.node and replace(seen.node, pressures=())
    seen = replace(seen, active_variant=profiles[0].name, server=ServerState.SERVING, memory=None, node=node)
    objectives = replace(objectives, pinned_variant=None, max_memory_bytes=None)
    window = seen.traffic or traffic(
        mean_compute_milliseconds=1e6, mean_total_milliseconds=1e6, in_flight=1, age_seconds=0
    )
    if missing == "none":
        seen = replace(seen, traffic=None)
    elif missing == "stale":
        seen = replace(seen, traffic=replace(window, age_seconds=switching.stale_after_seconds + 0.1))
    elif missing == "unknown server":
        seen = replace(seen, server=ServerState.UNKNOWN)
    else:
        seen = replace(seen, traffic=replace(window, requests=50, mean_compute_milliseconds=math.nan))
    decision, _ = decide(
        observation=seen, objectives=objectives, profiles=profiles, switching=switching, state=state, now=NOW
    )
    assert decision.action is Action.HOLD
    assert decision.reason in (Reason.MISSING_METRICS, Reason.STALE_METRICS, Reason.SETTLING, Reason.PAUSED)
