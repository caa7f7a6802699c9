"""The warm standby: which variant stays resident beside the active one, when it is loaded, and the way down to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from building import NOW, by_name, decided, memory, observation, quarantined, repeated, traffic
from hypothesis import given
from hypothesis import strategies as st
from simulator import MEBIBYTE, PROFILES, SWITCHING
from strategies import observations, states, switchings, times

from edgefolio.decision import decide, state_after_switch
from edgefolio.decision.estimates.memory import NODE_RESERVE_BYTES, needed_bytes
from edgefolio.decision.rules.standby import LEAST_SLOWDOWN, MOST_SLOWDOWN, remember_slowest, slowdown
from edgefolio.decision.types import (
    Action,
    Contention,
    Decision,
    NodeState,
    Objectives,
    Observation,
    Reading,
    Reason,
    ServerState,
    Signal,
    Standby,
    StandbyReason,
    State,
)

CALM = State(calm_since=NOW - 60, observed_at=NOW - 1)
ASKED = Objectives(latency_p95_milliseconds=30.0)
WITH_TINY = ("tiny", "large")


def standby_of(decision: Decision) -> Standby:
    assert decision.standby is not None
    return decision.standby


def planned(seen: Observation | None = None, *, state: State = CALM, **arguments: object) -> Standby:
    decision, _ = decided(seen or observation("large", traffic=traffic("large", rate=2)), state=state, **arguments)  # type: ignore[arg-type]
    return standby_of(decision)


def test_in_calm_the_variant_for_a_slower_node_is_loaded() -> None:
    found = planned()
    assert (found.variant, found.reason) == ("mid", StandbyReason.LOAD), "6 ms twice as slow is inside 30 ms"
    assert planned(objectives=Objectives(latency_p95_milliseconds=13.0)).variant == "small"
    assert planned(objectives=Objectives(latency_p95_milliseconds=500.0)).variant == "mid", "never the active one"


def test_a_window_without_a_violation_was_calm_from_its_beginning() -> None:
    seen = observation("large", traffic=traffic("large", rate=2))
    started = State(last_switch_at=NOW - 4)
    _, state = decided(seen, state=started)
    assert state.calm_since == NOW - 4, "of five seconds four are of this variant"
    _, state = decided(seen, state=State())
    assert state.calm_since == NOW - 5
    _, state = decided(seen, state=State(violation_since=NOW - 3, observed_at=NOW - 1))
    assert state.calm_since == NOW, "a violation has just ended"


def test_nothing_is_loaded_once_readings_are_above_the_objective() -> None:
    slow = Reading(
        seconds=0.25,
        requests=5,
        mean_compute_milliseconds=80.0,
        mean_queue_milliseconds=0.0,
        mean_total_milliseconds=80.5,
        pending=0,
    )
    seen = observation("large", traffic=traffic("large", readings=(slow,)))
    found = planned(seen)
    assert (found.variant, found.reason) == (None, StandbyReason.NOT_CALM)
    assert planned(replace(seen, traffic=traffic("large"))).reason is StandbyReason.LOAD


def test_nothing_is_loaded_under_contention_but_where_that_never_ends() -> None:
    pressed = Contention(pressure=Signal(percent=60.0, age_seconds=0.0))
    seen = observation("large", contention=pressed)
    lately = replace(CALM, calm_since=NOW - SWITCHING.up_after_seconds + 5)
    found = planned(seen, state=lately)
    assert (found.variant, found.reason) == (None, StandbyReason.NOT_CALM)
    assert "Others want" in found.message
    always = replace(CALM, calm_since=NOW - SWITCHING.up_after_seconds)
    assert planned(seen, state=always).reason is StandbyReason.LOAD
    faint = Contention(pressure=Signal(percent=5.0, age_seconds=0.0))
    assert planned(replace(seen, contention=faint), state=lately).reason is StandbyReason.LOAD


def test_what_the_endpoint_has_met_decides_how_much_slower() -> None:
    met = replace(CALM, slowest_factor=5.5, slowest_updated_at=NOW)
    assert planned(state=met).variant == "small", "4 ms six times slower, with margin"
    assert slowdown(State()) == LEAST_SLOWDOWN
    assert slowdown(State(slowest_factor=100.0)) == MOST_SLOWDOWN
    remembered = remember_slowest(State(compute_factor=5.0), now=NOW)
    assert remembered.slowest_factor == 5.0
    later = remember_slowest(replace(remembered, compute_factor=1.0), now=NOW + 6 * 3600)
    assert later.slowest_factor == pytest.approx(3.0), "half of it is forgotten after six hours"


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (replace(CALM, calm_since=NOW - 1), observation("large")),
        (replace(CALM, last_switch_at=NOW - 1), observation("large")),
        (CALM, observation("large", traffic=traffic("large", factor=4.0))),
        (CALM, observation("large", traffic=None)),
        (CALM, observation("large", traffic=traffic("large", age_seconds=99.0))),
        (CALM, observation("large", node=NodeState(others_cpu_percent=99.0))),
        (CALM, observation("large", node=NodeState(pressures=("DiskPressure",)))),
        (replace(CALM, standby_released_at=NOW - 5), observation("large")),
    ],
)
def test_nothing_is_loaded_or_unloaded_while_anything_is_in_doubt(state, seen) -> None:
    found = planned(seen, state=state)
    assert (found.variant, found.reason) == (None, StandbyReason.NOT_CALM)
    kept = planned(replace(seen, resident_variants=WITH_TINY), state=state)
    assert (kept.variant, kept.reason) == ("tiny", StandbyReason.RESIDENT), "nor is one given up"


@pytest.mark.parametrize(
    "arguments",
    [
        {"objectives": Objectives()},
        {"objectives": replace(ASKED, pinned_variant="large")},
        {"switching": SWITCHING.model_copy(update={"standby": "None"})},
    ],
)
def test_where_none_is_asked_for_none_stays(arguments) -> None:
    found = planned(observation("large", resident_variants=WITH_TINY), **arguments)
    assert (found.variant, found.reason) == (None, StandbyReason.NOT_ASKED)


def test_an_order_of_the_operator_is_no_pin() -> None:
    assert planned(objectives=replace(ASKED, pinned_variant="large", pin_is_order=True)).variant == "mid"


def test_the_fastest_variant_needs_none() -> None:
    assert planned(observation("tiny")).reason is StandbyReason.NOTHING_FASTER


def test_a_variant_that_failed_is_no_standby() -> None:
    failed = replace(quarantined("mid", "small"), calm_since=CALM.calm_since, observed_at=CALM.observed_at)
    assert planned(state=failed).variant == "tiny"


def test_room_for_one_load_is_room_that_a_neighbour_may_want_too() -> None:
    needed = needed_bytes(by_name("mid")) / MEBIBYTE
    assert not planned().is_scarce, "nobody knows of what the node has"
    for loads, is_scarce in ((1.5, True), (2.5, False)):
        left = memory(node=NODE_RESERVE_BYTES / MEBIBYTE + loads * needed)
        found = planned(observation("large", memory=left))
        assert (found.variant, found.reason, found.is_scarce) == ("mid", StandbyReason.LOAD, is_scarce)


def test_memory_is_honest() -> None:
    limited = observation("large", memory=memory(limit=100, used=70))
    assert planned(limited).variant == "tiny", "20 MiB fit below the headroom; 30 do not"
    full = observation("large", memory=memory(limit=100, used=80))
    found = planned(full)
    assert (found.variant, found.reason) == (None, StandbyReason.INSUFFICIENT_STANDBY_MEMORY)
    assert "80.0 MiB of 100.0 MiB" in found.message
    asked = replace(ASKED, max_memory_bytes=85 * MEBIBYTE)
    assert planned(objectives=asked).variant == "tiny", "maxMemory bounds both together"
    assert planned(objectives=replace(asked, max_memory_bytes=70 * MEBIBYTE)).variant is None
    node = observation("large", memory=memory(node=40))
    assert planned(node).variant is None, "the node keeps its reserve"


@pytest.mark.parametrize(
    ("seen", "objectives"),
    [
        (observation("large", memory=memory(limit=100, used=97)), ASKED),
        (observation("large", node=NodeState(pressures=("MemoryPressure",))), ASKED),
        (observation("large"), replace(ASKED, max_memory_bytes=70 * MEBIBYTE)),
    ],
)
def test_the_standby_goes_before_the_active_variant_is_given_up(seen, objectives) -> None:
    decision, after = decided(replace(seen, resident_variants=WITH_TINY), objectives=objectives, state=CALM)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.STANDBY_RELEASED)
    assert standby_of(decision).variant is None
    assert after.standby_released_at == NOW
    pinned = replace(objectives, pinned_variant="large", pin_is_order=True)
    decision, _ = decided(replace(seen, resident_variants=WITH_TINY), objectives=pinned, state=CALM)
    assert standby_of(decision).variant is None, "also where the operator decides"


def test_a_standby_that_does_is_not_exchanged_for_a_better_one() -> None:
    found = planned(observation("large", resident_variants=WITH_TINY))
    assert (found.variant, found.reason) == ("tiny", StandbyReason.RESIDENT)
    slow = replace(CALM, slowest_factor=8.0, slowest_updated_at=NOW)
    tight = Objectives(latency_p95_milliseconds=25.0)
    changed = planned(
        observation("large", resident_variants=("mid", "large"), traffic=traffic("large", rate=2)),
        state=slow,
        objectives=tight,
    )
    assert (changed.variant, changed.reason) == ("tiny", StandbyReason.LOAD), "mid would not do any more"


def test_a_violation_goes_down_to_what_is_resident_then_to_what_fits_best() -> None:
    slow = observation("large", resident_variants=WITH_TINY, traffic=traffic("large", factor=3.2, rate=3))
    decision, state = repeated(slow, seconds=10, state=CALM)
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny"), "small or mid would have to be loaded"
    assert "resident" in decision.message
    assert state.violation_since is not None
    alone, _ = repeated(replace(slow, resident_variants=("large",)), seconds=10, state=CALM)
    assert alone.target == "mid"
    # Calm again: what lies between is taken after the dwell time, not after the whole way up.
    switched = state_after_switch(state, variant="tiny", now=NOW)
    calm = observation("tiny", traffic=traffic("tiny", factor=3.2, rate=3))
    decision, state = repeated(calm, seconds=29, state=switched, now=NOW + 3)
    assert (decision.reason, decision.target) == (Reason.MORE_ACCURATE_FITS, "mid")
    assert state.descent is not None
    assert state.descent.variant == "large", "it is still the one to come back to"
    assert standby_of(decision).variant == "tiny", "it was there, and stays"


def test_a_severe_violation_is_acted_on_sooner_where_something_is_resident() -> None:
    def seconds_until_switch(factor: float, resident: tuple[str, ...]) -> int:
        seen = observation("large", resident_variants=resident, traffic=traffic("large", factor=factor, rate=10))
        state = CALM
        for second in range(60):
            decision, state = decided(seen, state=state, now=NOW + second)
            if decision.action is Action.SWITCH:
                return second
        raise AssertionError("it never switched")

    assert seconds_until_switch(8.0, WITH_TINY) <= 2
    assert seconds_until_switch(8.0, ("large",)) == SWITCHING.down_after_seconds
    slight = seconds_until_switch(3.0, WITH_TINY)
    assert 2 < slight <= SWITCHING.down_after_seconds


def test_leaving_for_a_resident_variant_need_not_dwell_but_is_in_the_budget() -> None:
    lately = replace(CALM, last_switch_at=NOW - 5)
    slow = observation("large", resident_variants=WITH_TINY, traffic=traffic("large", factor=6.0, rate=10))
    decision, _ = repeated(slow, seconds=4, state=lately)
    assert decision.action is Action.SWITCH
    spent = replace(lately, recent_switches=tuple(NOW - 60 * k for k in range(SWITCHING.max_switches_per_hour)))
    decision, _ = repeated(slow, seconds=4, state=spent)
    assert decision.reason is Reason.SWITCH_BUDGET_SPENT


def test_on_the_way_up_what_served_stays_resident_if_memory_allows() -> None:
    fits = replace(CALM, calm_since=NOW - 60)
    calm = observation("small", traffic=traffic("small"))
    decision, _ = repeated(calm, seconds=40, state=fits)
    assert (decision.action, standby_of(decision).variant) == (Action.SWITCH, "small")
    tight = replace(calm, resident_variants=("tiny", "small"), memory=memory(limit=110, used=50))
    decision, _ = repeated(tight, seconds=40, state=fits)
    assert decision.target == "large", "the room of the standby counts as free"
    assert standby_of(decision).variant is None
    assert standby_of(decision).reason is StandbyReason.INSUFFICIENT_STANDBY_MEMORY


@given(
    seen=observations(st.floats(0.1, 1e4), st.integers(0, 2**33)),
    switching=switchings,
    state=states(times),
    milliseconds=st.floats(1, 1e4),
    maximum=st.none() | st.integers(1, 2**30),
)
def test_a_standby_is_below_what_serves_and_fits_beside_it(seen, switching, state, milliseconds, maximum) -> None:
    objectives = Objectives(latency_p95_milliseconds=milliseconds, max_memory_bytes=maximum)
    decision, _ = decide(
        observation=seen,
        objectives=objectives,
        profiles=PROFILES,
        switching=switching,
        state=state,
        now=NOW,
        with_standby=True,
    )
    found = standby_of(decision)
    assert found.message.endswith(".")
    served = decision.target if decision.action is Action.SWITCH else seen.active_variant
    if found.variant is None or served is None:
        return
    assert switching.standby == "Auto"
    assert by_name(found.variant).rank < by_name(served).rank
    if decision.action is Action.SWITCH or found.reason is StandbyReason.RESIDENT:
        assert found.variant in (*seen.resident_variants, seen.active_variant), "nothing is loaded during a switch"
    if found.reason is StandbyReason.LOAD:
        assert seen.server is ServerState.SERVING
        if maximum is not None:
            assert by_name(found.variant).memory_peak_bytes + by_name(served).memory_peak_bytes <= maximum
