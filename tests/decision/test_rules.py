"""Each rule and each reason of the core, one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from building import NOW, by_name, decided, memory, observation, quarantined, repeated, traffic
from simulator import MEBIBYTE, PROFILES, SWITCHING

from edgefolio.decision import state_after_failure, state_after_switch
from edgefolio.decision.state import rebased
from edgefolio.decision.types import (
    Action,
    FittingVariant,
    Objectives,
    ProbeResult,
    Quarantine,
    Reason,
    ServerState,
    State,
    UpgradeBackoff,
)

SLOW = Objectives(latency_p95_milliseconds=15.0)


# Serving nothing, dead, unknown.


def test_the_first_variant_is_the_most_accurate_that_fits() -> None:
    decision, _ = decided(observation(None))
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.INITIAL, "large")
    decision, _ = decided(observation(None), objectives=Objectives(latency_p95_milliseconds=8))
    assert decision.target == "mid"


def test_a_remembered_node_is_taken_into_account_at_the_start() -> None:
    decision, _ = decided(observation(None), state=State(compute_factor=4.0, factor_updated_at=NOW))
    assert decision.target == "small"


def test_nothing_is_loaded_that_cannot_fit() -> None:
    decision, _ = decided(observation(None, memory=memory(limit=15)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    assert "needs 20.0 MiB, the server has 14.2 MiB" in decision.message


def test_a_dead_server_gets_its_variant_back_whatever_was_switched_just_now() -> None:
    state = state_after_switch(State(), variant="mid", now=NOW - 1)
    decision, _ = decided(observation("mid", server=ServerState.DEAD), state=state)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.SERVER_DEAD, "mid")


def test_a_dead_server_whose_variant_failed_gets_another_one() -> None:
    decision, _ = decided(observation("large", server=ServerState.DEAD), state=quarantined("large"))
    assert (decision.reason, decision.target) == (Reason.SERVER_DEAD, "mid")


def test_an_unknown_active_variant_is_replaced_but_not_when_paused() -> None:
    seen = observation(None, active_variant="of-another-revision", traffic=None)
    decision, _ = decided(seen)
    assert (decision.reason, decision.target) == (Reason.UNKNOWN_ACTIVE_VARIANT, "large")
    for policy, reason in (("Paused", Reason.PAUSED), ("Recommend", Reason.RECOMMEND_ONLY)):
        decision, _ = decided(seen, switching=SWITCHING.model_copy(update={"policy": policy}))
        assert (decision.action, decision.reason) == (Action.HOLD, reason)


@pytest.mark.parametrize("policy", ["Paused", "Recommend"])
@pytest.mark.parametrize("server", [ServerState.SERVING, ServerState.DEAD])
def test_every_policy_keeps_an_endpoint_serving(policy: str, server: ServerState) -> None:
    decision, _ = decided(observation(None, server=server), switching=SWITCHING.model_copy(update={"policy": policy}))
    assert decision.action is Action.SWITCH


def test_an_endpoint_that_serves_nothing_retries_quarantined_variants_soon() -> None:
    state = State()
    for profile in PROFILES:
        state = state_after_failure(state, variant=profile.name, cause="load failed", now=NOW, switching=SWITCHING)
    state = state_after_failure(state, variant="large", cause="load failed", now=NOW, switching=SWITCHING)
    decision, _ = decided(observation(None), state=state, now=NOW + 5)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.ALL_QUARANTINED)
    assert "tried again in 5 s" in decision.message
    decision, _ = decided(observation(None), state=state, now=NOW + 10)
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")
    # One that serves waits for the whole quarantine.
    decision, _ = repeated(observation("mid", traffic=traffic("mid")), state=state, seconds=59)
    assert decision.action is Action.HOLD


def test_no_usable_profile_holds() -> None:
    broken = tuple(replace(profile, mean_milliseconds=math.nan) for profile in PROFILES)
    decision, _ = decided(observation("large"), profiles=broken)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.MISSING_METRICS)


# Policy, pin.


def test_recommend_only_says() -> None:
    switching = SWITCHING.model_copy(update={"policy": "Recommend"})
    seen = observation(traffic=traffic(factor=3))
    decision, state = repeated(seen, seconds=10, switching=switching)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.RECOMMEND_ONLY)
    assert decision.target == "small"
    assert state.upgraded_variant is None


def test_paused_holds() -> None:
    switching = SWITCHING.model_copy(update={"policy": "Paused"})
    decision, _ = repeated(observation(traffic=traffic(factor=3)), seconds=20, switching=switching)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PAUSED)


def test_a_pin_is_obeyed_at_once_and_kept() -> None:
    pinned = Objectives(latency_p95_milliseconds=5, pinned_variant="large")
    state = state_after_switch(State(), variant="tiny", now=NOW - 1)
    decision, _ = decided(observation("tiny"), objectives=pinned, state=state)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.PINNED, "large")
    decision, _ = repeated(observation("large", traffic=traffic(factor=5)), objectives=pinned, seconds=20)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PINNED)
    assert decision.objectives_met is False
    decision, _ = decided(observation(None), objectives=pinned)
    assert decision.target == "large"


@pytest.mark.parametrize("name", ["large", "nonsense"])
def test_a_pin_that_cannot_be_obeyed_says_so(name: str) -> None:
    pinned = Objectives(pinned_variant=name)
    decision, _ = decided(observation("tiny"), objectives=pinned, state=quarantined("large"))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PINNED)
    assert "tiny stays" in decision.message
    decision, _ = decided(
        observation("tiny", memory=memory(limit=70, used=30)), objectives=Objectives(pinned_variant="large")
    )
    assert decision.reason is Reason.INSUFFICIENT_SWITCH_MEMORY


# Memory.


def test_a_memory_objective_is_met_at_once() -> None:
    asked = Objectives(max_memory_bytes=35 * MEBIBYTE)
    state = state_after_switch(State(), variant="large", now=NOW - 1)
    decision, _ = decided(observation("large"), objectives=asked, state=state)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.MEMORY_EXCEEDED, "small")


def test_the_smallest_serves_where_none_is_small_enough() -> None:
    asked = Objectives(max_memory_bytes=5 * MEBIBYTE)
    decision, _ = decided(observation("large"), objectives=asked)
    assert (decision.reason, decision.target) == (Reason.MEMORY_EXCEEDED, "tiny")
    decision, _ = decided(observation("tiny"), objectives=asked)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)
    assert decision.objectives_met is False or decision.objectives_met is None


def test_an_emergency_may_use_the_headroom() -> None:
    # 970 of 1000 MiB: 30 are left, 5 % should be free.
    decision, _ = decided(observation("large", memory=memory(limit=1000, used=970)))
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.MEMORY_EXCEEDED, "small")
    decision, _ = decided(observation("large", memory=memory(limit=1000, used=990)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    assert "needs 20.0 MiB beside what is loaded, 10.0 MiB are left" in decision.message


def test_a_resident_variant_needs_no_memory_to_be_taken() -> None:
    seen = observation(
        "large", resident_variants=("large", "tiny"), memory=memory(limit=1000, used=995), traffic=traffic("large")
    )
    decision, _ = decided(seen)
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")


def test_the_smallest_is_not_blamed_for_a_full_server() -> None:
    decision, _ = decided(observation("tiny", memory=memory(limit=1000, used=990)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_MET)


def test_an_upgrade_waits_for_memory_and_says_how_much() -> None:
    seen = observation("mid", memory=memory(limit=130, used=82, node=500))
    decision, _ = repeated(seen, seconds=60)
    assert (decision.action, decision.reason, decision.target) == (
        Action.HOLD,
        Reason.INSUFFICIENT_SWITCH_MEMORY,
        "large",
    )
    assert "needs 60.0 MiB beside what is loaded, 41.5 MiB are left" in decision.message


def test_the_node_must_keep_a_reserve() -> None:
    fits, _ = repeated(observation("mid", memory=memory(node=93)), seconds=60)
    assert (fits.action, fits.target) == (Action.SWITCH, "large")
    short, _ = repeated(observation("mid", memory=memory(node=91)), seconds=60)
    assert short.reason is Reason.INSUFFICIENT_SWITCH_MEMORY


def test_a_backend_process_per_instance_counts() -> None:
    roomy = memory(limit=160, used=82)
    up, _ = repeated(observation("mid", memory=roomy), seconds=60)
    assert up.target == "large"
    seen = observation("mid", memory=replace(roomy, instance_overhead_bytes=30 * MEBIBYTE))
    held, _ = repeated(seen, seconds=60)
    assert held.reason is Reason.INSUFFICIENT_SWITCH_MEMORY
    assert "needs 90.0 MiB beside what is loaded, 70.0 MiB are left" in held.message


# Metrics.


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"traffic": None}, Reason.MISSING_METRICS),
        ({"server": ServerState.UNKNOWN}, Reason.MISSING_METRICS),
        ({"traffic": traffic(factor=9, age_seconds=16)}, Reason.STALE_METRICS),
        ({"traffic": traffic(factor=9, age_seconds=math.nan)}, Reason.STALE_METRICS),
        ({"traffic": traffic(factor=9), "memory": memory(age=99)}, Reason.STALE_METRICS),
        ({"traffic": traffic(factor=9, mean_compute_milliseconds=-1)}, Reason.MISSING_METRICS),
        ({"traffic": traffic(factor=9, mean_compute_milliseconds=0)}, Reason.MISSING_METRICS),
        ({"traffic": traffic(factor=9, seconds=0)}, Reason.MISSING_METRICS),
        ({"traffic": traffic(factor=9, mean_queue_milliseconds=math.inf)}, Reason.MISSING_METRICS),
    ],
)
def test_without_metrics_it_holds(fields, reason) -> None:
    decision, state = repeated(observation(**fields), seconds=60)
    assert (decision.action, decision.reason) == (Action.HOLD, reason)
    assert state.violation_since is None
    assert state.compute_factor == 1.0


def test_a_gap_in_the_metrics_starts_the_timers_anew() -> None:
    slow = observation(traffic=traffic(factor=3))
    _, state = repeated(slow, seconds=4)
    gone, state = decided(observation(traffic=None), state=state, now=NOW + 10)
    assert gone.reason is Reason.MISSING_METRICS
    short, _ = decided(slow, state=state, now=NOW + 15)
    assert short.action is Action.SWITCH
    long, after = decided(slow, state=state, now=NOW + 25)
    assert (long.reason, after.violation_since) == (Reason.VIOLATION_TOO_SHORT, NOW + 25)


def test_measurements_right_after_a_switch_are_not_believed() -> None:
    state = state_after_switch(State(), variant="large", now=NOW)
    decision, after = decided(observation(traffic=traffic(factor=9)), state=state, now=NOW + 2.9)
    assert decision.reason is Reason.SETTLING
    assert after.compute_factor == 1.0
    decision, after = decided(observation(traffic=traffic(factor=9)), state=state, now=NOW + 3)
    assert decision.reason is Reason.VIOLATION_TOO_SHORT
    assert after.compute_factor > 5


def test_without_traffic_the_factor_falls_back_to_one_with_its_half_life() -> None:
    state = State(compute_factor=5.0, factor_updated_at=NOW)
    _, state = decided(observation(traffic=traffic(rate=0)), state=state, now=NOW + 60)
    assert state.compute_factor == pytest.approx(3.0)


def test_without_traffic_the_factor_follows_the_probe() -> None:
    state = State(compute_factor=1.0, factor_updated_at=NOW)
    probe = ProbeResult(variant="large", compute_milliseconds=30, age_seconds=1)
    seen = observation(traffic=traffic(rate=0), probe=probe)
    decision, state = decided(seen, state=state, now=NOW + 10)
    assert state.compute_factor == pytest.approx(2.0)
    assert decision.action is Action.HOLD
    # Of another variant, or too old, it says nothing.
    for other in (replace(probe, variant="mid"), replace(probe, age_seconds=500)):
        _, after = decided(replace(seen, probe=other), state=State(factor_updated_at=NOW), now=NOW + 10)
        assert after.compute_factor == 1.0


def test_an_idle_endpoint_never_violates() -> None:
    probe = ProbeResult(variant="large", compute_milliseconds=300, age_seconds=1)
    decision, _ = repeated(observation(traffic=traffic(rate=0), probe=probe), seconds=120)
    assert decision.action is Action.HOLD
    assert decision.reason in (Reason.VIOLATION_TOO_SHORT, Reason.OBJECTIVES_NOT_MET)


# Latency.


def test_a_violation_must_last() -> None:
    seen = observation(traffic=traffic(factor=3))
    early, state = repeated(seen, seconds=4)
    assert early.reason is Reason.VIOLATION_TOO_SHORT
    late, _ = decided(seen, state=state, now=NOW + 5)
    assert (late.action, late.reason, late.target) == (Action.SWITCH, Reason.LATENCY_VIOLATED, "small")
    assert "p95 of large is 36.5 ms of 30.0 ms, for 5 s" in late.message


def test_a_violation_must_show_in_enough_requests() -> None:
    # A request in five seconds: ten of them take most of a minute.
    rare = traffic(factor=3, rate=0.2)
    early, _ = repeated(observation(traffic=rare), seconds=40)
    assert early.reason is Reason.VIOLATION_TOO_SHORT
    late, _ = repeated(observation(traffic=rare), seconds=60)
    assert late.reason is Reason.LATENCY_VIOLATED


def test_the_servers_own_p95_can_contradict_but_not_accuse() -> None:
    contradicted = traffic(factor=3, p95_milliseconds=20.0)
    decision, _ = repeated(observation(traffic=contradicted), seconds=20)
    assert decision.action is Action.HOLD
    accused = traffic(p95_milliseconds=500.0)
    decision, _ = repeated(observation(traffic=accused), seconds=20)
    assert decision.reason is Reason.OBJECTIVES_MET
    nonsense = traffic(factor=3, p95_milliseconds=math.nan)
    decision, _ = repeated(observation(traffic=nonsense), seconds=20)
    assert decision.reason is Reason.LATENCY_VIOLATED


def test_the_network_takes_its_part_of_the_budget() -> None:
    asked = Objectives(latency_p95_milliseconds=30, network_latency_milliseconds=20)
    decision, _ = repeated(observation(), objectives=asked, seconds=20)
    assert (decision.reason, decision.target) == (Reason.LATENCY_VIOLATED, "mid")


def test_where_nothing_is_fast_enough_the_fastest_serves() -> None:
    seen = observation(traffic=traffic(factor=30, rate=2))
    decision, _ = repeated(seen, seconds=20)
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")
    assert "no variant meets all objectives" in decision.message
    decision, _ = repeated(observation("tiny", traffic=traffic("tiny", factor=30, rate=2)), seconds=20)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)
    assert decision.objectives_met is False


def test_the_accuracy_minimum_is_a_floor_on_the_way_down() -> None:
    asked = Objectives(latency_p95_milliseconds=30, min_accuracy_percent=89)
    seen = observation(traffic=traffic(factor=30, rate=2))
    decision, _ = repeated(seen, objectives=asked, seconds=20)
    assert (decision.action, decision.target) == (Action.SWITCH, "mid")
    seen = observation("mid", traffic=traffic("mid", factor=30, rate=2))
    decision, _ = repeated(seen, objectives=asked, seconds=20)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)


def test_dwell_and_budget_hold_a_downward_switch() -> None:
    seen = observation(traffic=traffic(factor=3))
    state = State(last_switch_at=NOW - 2, recent_switches=(NOW - 2,))
    decision, _ = repeated(seen, state=state, seconds=6)
    assert (decision.reason, decision.target) == (Reason.MIN_DWELL, "small")
    state = State(recent_switches=tuple(NOW - 60 * number for number in range(12)))
    decision, _ = repeated(seen, state=state, seconds=20)
    assert (decision.reason, decision.target) == (Reason.SWITCH_BUDGET_SPENT, "small")


def test_a_full_server_with_waiting_requests_is_saturated() -> None:
    full = traffic(rate=98, mean_queue_milliseconds=60, mean_total_milliseconds=70.5, in_flight=6.0)
    decision, _ = repeated(observation(traffic=full), seconds=10)
    assert (decision.reason, decision.target) == (Reason.SATURATED, "small")
    assert decision.rate_is_censored
    assert decision.arrival_rate == 98


def test_a_saturated_server_without_a_latency_objective_is_left_alone() -> None:
    full = traffic(rate=98, mean_queue_milliseconds=60, mean_total_milliseconds=70.5, in_flight=6.0)
    decision, _ = repeated(observation(traffic=full), objectives=Objectives(), seconds=10)
    assert decision.reason is Reason.OBJECTIVES_MET


# Failures.


def test_a_variant_that_fails_most_requests_is_left_and_quarantined() -> None:
    failing = traffic(requests=20, executions=20, failures=80)
    state = State(last_switch_at=NOW - 4, recent_switches=tuple(NOW - number for number in range(4, 16)))
    decision, after = repeated(observation(traffic=failing), state=state, seconds=5)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.FAILURES, "mid")
    assert [entry.variant for entry in after.quarantined] == ["large"]


def test_failures_that_go_on_are_not_the_variants() -> None:
    failing = traffic("mid", requests=0, executions=0, failures=100)
    _, state = repeated(observation(traffic=traffic(requests=0, executions=0, failures=100)), seconds=5)
    state = state_after_switch(state, variant="mid", now=NOW + 6)
    decision, _ = repeated(observation("mid", traffic=failing), state=state, now=NOW + 9, seconds=100)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)
    assert "not the cause" in decision.message


def test_a_few_failures_are_the_clients_own() -> None:
    decision, _ = repeated(observation(traffic=traffic(failures=40)), seconds=30)
    assert decision.reason is Reason.OBJECTIVES_MET


# Accuracy.


def test_a_raised_minimum_is_met_without_waiting_for_calm() -> None:
    asked = Objectives(latency_p95_milliseconds=30, min_accuracy_percent=89)
    decision, _ = decided(observation("small"), objectives=asked)
    assert (decision.action, decision.reason) == (Action.SWITCH, Reason.ACCURACY_BELOW_MINIMUM)
    assert decision.target == "large"
    held, _ = decided(observation("small"), objectives=asked, state=State(last_switch_at=NOW - 5))
    assert (held.reason, held.target) == (Reason.MIN_DWELL, "large")


def test_a_minimum_that_none_reaches_brings_the_most_accurate() -> None:
    asked = Objectives(latency_p95_milliseconds=3, min_accuracy_percent=99)
    decision, _ = decided(observation("small"), objectives=asked)
    assert decision.target == "large"
    decision, _ = repeated(observation("large"), objectives=asked, seconds=20)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)


def test_a_raised_minimum_waits_for_memory() -> None:
    asked = Objectives(min_accuracy_percent=91)
    decision, _ = decided(observation("mid", memory=memory(limit=130, used=82)), objectives=asked)
    assert (decision.reason, decision.target) == (Reason.INSUFFICIENT_SWITCH_MEMORY, "large")


# Upgrades.


def test_a_more_accurate_variant_must_fit_for_long() -> None:
    seen = observation("mid")
    early, state = repeated(seen, seconds=29)
    assert (early.reason, early.target) == (Reason.CALM_TOO_SHORT, "large")
    late, after = decided(seen, state=state, now=NOW + 30)
    assert (late.action, late.reason, late.target) == (Action.SWITCH, Reason.MORE_ACCURATE_FITS, "large")
    assert (after.upgraded_variant, after.upgraded_at) == ("large", NOW + 30)


def test_the_dead_band_keeps_a_variant_out_that_would_just_fit() -> None:
    asked = Objectives(latency_p95_milliseconds=14)
    decision, _ = repeated(observation("mid", traffic=traffic("mid", rate=1)), objectives=asked, seconds=60)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.DEAD_BAND)
    assert "large" in decision.message


def test_an_upgrade_is_not_taken_to_a_variant_that_could_not_keep_up() -> None:
    seen = observation("mid", traffic=traffic("mid", rate=95))
    decision, _ = repeated(seen, objectives=Objectives(), seconds=60)
    assert decision.reason is Reason.OBJECTIVES_MET
    large = next(entry for entry in decision.predictions if entry.variant == "large")
    assert "busy 95 % of the time" in large.verdict


def test_a_step_up_waits_for_a_better_one_that_is_nearly_due() -> None:
    state = State(
        observed_at=NOW - 1,
        fitting=(
            FittingVariant(variant="mid", since=NOW - 30),
            FittingVariant(variant="large", since=NOW - 25),
        ),
    )
    waiting, _ = decided(observation("small"), state=state)
    assert (waiting.reason, waiting.target) == (Reason.CALM_TOO_SHORT, "large")
    state = replace(state, fitting=(state.fitting[0], FittingVariant(variant="large", since=NOW - 5)))
    step, _ = decided(observation("small"), state=state)
    assert (step.reason, step.target) == (Reason.MORE_ACCURATE_FITS, "mid")


def test_an_upgrade_leaves_the_last_switch_for_the_way_down() -> None:
    state = State(recent_switches=tuple(NOW - 100 * number for number in range(11)))
    up, _ = repeated(observation("mid"), state=state, seconds=40)
    assert (up.reason, up.target) == (Reason.SWITCH_BUDGET_SPENT, "large")
    down, _ = repeated(observation(traffic=traffic(factor=3)), state=state, seconds=20)
    assert down.reason is Reason.LATENCY_VIOLATED


def test_an_upgrade_that_bounces_waits_twice_as_long_each_time() -> None:
    state = State(upgraded_variant="large", upgraded_at=NOW)
    waits = []
    for round_number in range(3):
        start = NOW + 1000 * round_number
        state = replace(state, upgraded_variant="large", upgraded_at=start, last_switch_at=None, recent_switches=())
        slow = observation(traffic=traffic(factor=3))
        decision, state = repeated(slow, state=state, now=start, seconds=10)
        assert decision.action is Action.SWITCH
        waits.append(state.upgrade_backoffs[0].until - start - 5)
    assert waits == [30, 60, 120]


def test_a_bounced_upgrade_bars_what_is_as_slow_but_not_what_is_faster() -> None:
    state = State(upgrade_backoffs=(UpgradeBackoff(variant="mid", until=NOW + 500, bounces=1),))
    decision, _ = repeated(observation("tiny"), state=state, seconds=40)
    assert (decision.action, decision.target) == (Action.SWITCH, "small")
    held, _ = repeated(observation("small"), state=state, seconds=40)
    assert (held.action, held.reason) == (Action.HOLD, Reason.CALM_TOO_SHORT)
    assert "it is tried again in" in held.message


def test_an_upgrade_that_holds_clears_its_record() -> None:
    state = State(
        upgraded_variant="large",
        upgraded_at=NOW,
        upgrade_backoffs=(UpgradeBackoff(variant="large", until=NOW - 5, bounces=3),),
    )
    _, kept = decided(observation(), state=state, now=NOW + 60)
    assert kept.upgrade_backoffs
    _, cleared = decided(observation(), state=state, now=NOW + 71)
    assert (cleared.upgrade_backoffs, cleared.upgraded_variant) == ((), None)


# State and clocks.


def test_quarantine_doubles_and_is_forgotten_long_after() -> None:
    state = state_after_failure(State(), variant="mid", cause="load failed", now=NOW, switching=SWITCHING)
    assert state.quarantined[0].until == NOW + 60
    state = state_after_failure(state, variant="mid", cause="load failed", now=NOW + 70, switching=SWITCHING)
    assert state.quarantined[0].until == NOW + 70 + 120
    state = state_after_switch(state, variant="mid", now=NOW + 200)
    assert state.quarantined[0].failures == 2
    assert rebased(state, now=NOW + 300, switching=SWITCHING).quarantined
    assert not rebased(state, now=NOW + 70 + 241, switching=SWITCHING).quarantined


def test_a_quarantined_variant_is_not_taken() -> None:
    decision, _ = repeated(observation("mid"), state=quarantined("large"), seconds=45)
    assert decision.reason is Reason.OBJECTIVES_MET
    decision, _ = repeated(observation("mid"), state=quarantined("large"), seconds=90)
    assert decision.target == "large"


def test_a_clock_that_goes_back_stops_nothing_for_long() -> None:
    later = NOW + 86_400
    state = State(
        factor_updated_at=later,
        observed_at=later,
        violation_since=later,
        violation_requests=50,
        last_switch_at=later,
        recent_switches=(later,),
        quarantined=(Quarantine(variant="small", until=later + 60, failures=1, cause="test"),),
    )
    decision, _ = repeated(observation(traffic=traffic(factor=3)), state=state, seconds=20)
    assert decision.action is Action.SWITCH
    # Its quarantine runs from now, not from a day later.
    assert decision.target == "tiny"


def test_a_clock_that_is_no_number_holds_and_changes_nothing() -> None:
    state = State(compute_factor=2.0)
    decision, after = decided(observation(), state=state, now=math.nan)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.MISSING_METRICS)
    assert after is state


def test_the_decision_shows_its_evidence() -> None:
    decision, _ = decided(observation(traffic=traffic(factor=2)))
    assert decision.compute_factor == pytest.approx(2.0)
    assert decision.transport_milliseconds == pytest.approx(0.5)
    assert decision.arrival_rate == 20
    assert [entry.variant for entry in decision.predictions] == ["tiny", "small", "mid", "large"]
    assert decision.objectives_met is True
    assert by_name("large").p95_milliseconds == 12
