"""What must hold for any input: total, bounded, never too fast, never what does not fit, monotone, deterministic."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from simulator import PROFILES, Scenario, simulate

from edgefolio.decision import decide, state_after_failure, state_after_switch, state_from_json, state_to_json
from edgefolio.decision.memory import needed_bytes
from edgefolio.decision.types import (
    Action,
    Decision,
    FittingVariant,
    MemoryState,
    NodeState,
    Objectives,
    Observation,
    ProbeResult,
    Quarantine,
    Reason,
    ServerState,
    State,
    TrafficBefore,
    TrafficWindow,
    UpgradeBackoff,
    VariantProfile,
)
from edgefolio.specification import Switching

NAMES = ("tiny", "small", "mid", "large", "gone")
NOW = 1_000_000.0
#: Reasons of switches that dwell time and budget do not bind.
EMERGENCIES = {
    Reason.INITIAL,
    Reason.SERVER_DEAD,
    Reason.UNKNOWN_ACTIVE_VARIANT,
    Reason.MEMORY_EXCEEDED,
    Reason.FAILURES,
    Reason.PINNED,
}

settings.register_profile("decision", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("decision")

wild = st.floats(allow_nan=True, allow_infinity=True)
names = st.sampled_from(NAMES)
positive = st.floats(0.01, 1e4)
whole = st.integers(0, 10**12)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def profiles_of(number: st.SearchStrategy[float], accuracy: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    def build(rows: list[tuple[float, float, float, int, int]]) -> tuple[VariantProfile, ...]:
        return tuple(
            VariantProfile(
                name=NAMES[index],
                rank=index + 1,
                accuracy_percent=row[0],
                mean_milliseconds=row[1],
                p95_milliseconds=row[2],
                load_milliseconds=100,
                memory_peak_bytes=row[3],
                memory_steady_bytes=row[4],
            )
            for index, row in enumerate(rows)
        )

    row = st.tuples(accuracy, number, number, whole, whole)
    return st.lists(row, max_size=4).map(build)


def traffics(number: st.SearchStrategy[float], count: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return st.builds(
        TrafficWindow,
        seconds=number,
        requests=count,
        failures=count,
        executions=count,
        mean_compute_milliseconds=number,
        mean_queue_milliseconds=number,
        mean_total_milliseconds=number,
        in_flight=number,
        batch=number,
        age_seconds=number,
        p95_milliseconds=optional(number),
    )


def observations(number: st.SearchStrategy[float], count: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    memory = st.builds(
        MemoryState,
        limit_bytes=optional(count),
        working_set_bytes=optional(count),
        node_available_bytes=optional(count),
        age_seconds=number,
    )
    node = st.builds(
        NodeState,
        others_cpu_percent=optional(number),
        pressures=st.sampled_from([(), ("MemoryPressure",), ("DiskPressure", "PIDPressure")]),
        reserved_bytes=count,
    )
    return st.builds(
        Observation,
        active_variant=optional(names),
        resident_variants=st.lists(names, max_size=3).map(tuple),
        server=st.sampled_from(ServerState),
        traffic=optional(traffics(number, count)),
        probe=optional(st.builds(ProbeResult, variant=names, compute_milliseconds=number, age_seconds=number)),
        memory=optional(memory),
        instances=st.integers(-2, 64),
        node=optional(node),
    )


def objectives_of(number: st.SearchStrategy[float]) -> st.SearchStrategy[Objectives]:
    return st.builds(
        Objectives,
        latency_p95_milliseconds=optional(number),
        network_latency_milliseconds=number,
        min_accuracy_percent=optional(number),
        max_memory_bytes=optional(whole),
        pinned_variant=optional(names),
    )


def states(number: st.SearchStrategy[float]) -> st.SearchStrategy[State]:
    time = optional(number)
    return st.builds(
        State,
        compute_factor=number,
        transport_milliseconds=number,
        arrival_variability=number,
        factor_updated_at=time,
        arrival_rate=time,
        saturated_at=time,
        before_switch=optional(st.builds(TrafficBefore, arrival_rate=number, in_flight=number, utilization=number)),
        closed_loop=st.booleans(),
        observed_at=time,
        violation_since=time,
        violation_requests=number,
        failing_since=time,
        fitting=st.lists(st.builds(FittingVariant, variant=names, since=number), max_size=3).map(tuple),
        last_switch_at=time,
        recent_switches=st.lists(number, max_size=5).map(tuple),
        quarantined=st.lists(
            st.builds(
                Quarantine, variant=names, until=number, failures=st.integers(-3, 10**6), cause=st.text(max_size=5)
            ),
            max_size=3,
        ).map(tuple),
        upgraded_variant=optional(names),
        upgraded_at=time,
        upgrade_backoffs=st.lists(
            st.builds(UpgradeBackoff, variant=names, until=number, bounces=st.integers(-3, 10**6)), max_size=3
        ).map(tuple),
    )


switchings = st.builds(
    Switching,
    policy=st.sampled_from(["Auto", "Auto", "Recommend", "Paused"]),
    down_after_seconds=st.integers(0, 60),
    up_after_seconds=st.integers(0, 300),
    min_dwell_seconds=st.integers(0, 120),
    max_switches_per_hour=st.integers(1, 20),
    up_margin_percent=st.integers(0, 100),
    down_margin_percent=st.integers(0, 100),
    settle_seconds=st.integers(0, 20),
    min_requests=st.integers(1, 100),
    memory_headroom_percent=st.integers(0, 100),
    window_seconds=st.integers(1, 60),
)

sane_profiles = profiles_of(positive, st.floats(0, 100)).filter(bool)
times = st.floats(NOW - 4000, NOW + 4000)


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
    decision, after = decide(**arguments, state=state)
    again, after_again = decide(**arguments, state=state)
    assert (repr(decision), repr(after)) == (repr(again), repr(after_again))
    assert decision.message.endswith(".")
    assert "\n" not in decision.message
    assert len(decision.message) < 400
    if decision.action is Action.SWITCH:
        assert decision.target in {profile.name for profile in profiles}
    # And what it leaves behind is something to go on with.
    decide(**{**arguments, "now": 5.0}, state=after)


@settings(max_examples=200)
@given(state=states(wild.map(lambda number: number + 0.0)))  # -0.0 is the default 0.0, and is left out like it
def test_state_survives_its_journey_as_json(state: State) -> None:
    assert repr(state_from_json(state_to_json(state))) == repr(state)


def test_state_of_another_release_is_read_and_nonsense_is_refused() -> None:
    assert state_from_json('{"computeFactor": 2.0, "newInTheNextRelease": [1]}') == State(compute_factor=2.0)
    for text in ("", "[]", '{"computeFactor": "fast"}', '{"recentSwitches": 5}'):
        with pytest.raises(ValueError):
            state_from_json(text)


@settings(max_examples=300)
@given(
    seen=observations(positive, whole),
    objectives=objectives_of(positive),
    profiles=sane_profiles,
    switching=switchings,
    state=states(times),
)
def test_a_switch_is_never_too_soon_nor_to_what_must_not_be_taken(seen, objectives, profiles, switching, state) -> None:
    seen = replace(seen, instances=1)
    decision, _ = decide(
        observation=seen, objectives=objectives, profiles=profiles, switching=switching, state=state, now=NOW
    )
    if decision.action is Action.HOLD:
        return
    target = next(profile for profile in profiles if profile.name == decision.target)
    dead = seen.server is ServerState.DEAD
    assert switching.policy == "Auto" or decision.reason in (Reason.INITIAL, Reason.SERVER_DEAD)
    if decision.reason not in EMERGENCIES:
        last = state.last_switch_at
        assert last is None or NOW - last >= switching.min_dwell_seconds
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
        assert fits_beside(target, seen)
    if decision.reason is Reason.MORE_ACCURATE_FITS:
        active = next(profile for profile in profiles if profile.name == seen.active_variant)
        assert target.rank > active.rank
        since = [min(entry.since, NOW) for entry in state.fitting if entry.variant == target.name]
        assert switching.up_after_seconds == 0 or NOW - max(since) >= switching.up_after_seconds
    if decision.reason in (Reason.LATENCY_VIOLATED, Reason.SATURATED):
        active = next(profile for profile in profiles if profile.name == seen.active_variant)
        assert target.mean_milliseconds < active.mean_milliseconds
        assert switching.down_after_seconds == 0 or state.violation_since is not None


def fits_beside(target: VariantProfile, seen: Observation) -> bool:
    """The bound of the physical memory, without any headroom, worked out on its own."""
    if seen.memory is None or target.name in (*seen.resident_variants, seen.active_variant):
        return True
    needed = needed_bytes(target)
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
    window = seen.traffic or TrafficWindow(
        seconds=5,
        requests=100,
        failures=0,
        executions=100,
        mean_compute_milliseconds=1e6,
        mean_queue_milliseconds=0,
        mean_total_milliseconds=1e6,
        in_flight=1,
        batch=1,
        age_seconds=0,
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


@settings(max_examples=30)
@given(data=st.data(), switching=switchings, seed=st.integers(0, 1000))
def test_a_hostile_hour_never_spends_more_than_the_budget(data: st.DataObject, switching: Switching, seed: int) -> None:
    """Whatever the counters say, second by second, and however loads end."""
    switching = switching.model_copy(update={"policy": "Auto"})
    state, active, switches = State(), "large", []
    factors = data.draw(st.lists(st.sampled_from([0.2, 1.0, 2.0, 4.0, 9.0]), min_size=4, max_size=40))
    now = NOW
    for step in range(300):
        now += 12
        milliseconds = next(profile for profile in PROFILES if profile.name == active).mean_milliseconds
        compute = milliseconds * factors[step % len(factors)]
        window = TrafficWindow(
            seconds=5,
            requests=100,
            failures=0,
            executions=100,
            mean_compute_milliseconds=compute,
            mean_queue_milliseconds=compute / 10,
            mean_total_milliseconds=compute * 1.1 + 0.5,
            in_flight=20 * compute / 1000,
            batch=8,
            age_seconds=0,
        )
        decision, state = decide(
            observation=Observation(
                active_variant=active, resident_variants=(active,), server=ServerState.SERVING, traffic=window
            ),
            objectives=Objectives(latency_p95_milliseconds=15),
            profiles=PROFILES,
            switching=switching,
            state=state,
            now=now,
        )
        if decision.action is Action.SWITCH:
            assert decision.target is not None
            if (step * 7 + seed) % 5 == 0:
                state = state_after_failure(state, variant=decision.target, cause="test", now=now, switching=switching)
                continue
            assert not switches or now - switches[-1] >= switching.min_dwell_seconds
            switches.append(now)
            state = state_after_switch(state, variant=decision.target, now=now)
            active = decision.target
    for index, first in enumerate(switches):
        assert sum(first <= other < first + 3600 for other in switches[index:]) <= switching.max_switches_per_hour


@pytest.mark.parametrize("period", [20, 130, 400])
@pytest.mark.parametrize("kind", ["factor", "rate", "clients"])
def test_an_alternating_load_does_not_make_it_flap(period: int, kind: str) -> None:
    """Fifty minutes of load that turns just when the core might have settled; dwell and budget hardly bind here."""
    switching = Switching(down_after_seconds=5, up_after_seconds=30, min_dwell_seconds=10, max_switches_per_hour=3600)

    def heavy(seconds: float) -> bool:
        return seconds % period < period / 2

    scenario = Scenario(
        name="adversary",
        note="",
        seconds=3000,
        switching=switching,
        cycle_seconds=5,
        rate=lambda seconds: 0.0 if kind == "clients" else (40.0 if kind == "rate" and heavy(seconds) else 8.0),
        highest_rate=40,
        factor=lambda seconds: 3.0 if kind == "factor" and heavy(seconds) else 1.0,
        clients=lambda seconds: (6 if heavy(seconds) else 2) if kind == "clients" else 0,
        think_seconds=0.05,
    )
    run = simulate(scenario)
    upgrades = [at for at, reason, _ in run.switches if reason == "MoreAccurateFits"]
    half = len([at for at in upgrades if at < 1500])
    # Without the growing wait, each calm half of a period long enough would see an upgrade.
    assert len(upgrades) <= 24
    assert len(upgrades) - half <= half + 2
    assert len(run.switches) <= 2 * len(upgrades) + 6


@pytest.mark.parametrize("rate", [5, 20, 33, 40, 48, 75, 90])
def test_a_steady_load_settles(rate: int) -> None:
    """Half an hour of the same load, also at the borders between two variants: a few switches, and then none."""
    scenario = Scenario(
        name="steady",
        note="",
        seconds=1800,
        rate=lambda _: float(rate),
        highest_rate=rate,
        cycle_seconds=5,
        seed=rate,
        switching=Switching(),
    )
    run = simulate(scenario)
    assert len(run.switches) <= 5
    outside = [decision for _, decision in run.decisions if decision.objectives_met is False]
    assert len(outside) <= len(run.decisions) * 0.1
