"""Down to a faster variant: when latency is missed for long enough, and how far down."""

from __future__ import annotations

import math

from building import NOW, decided, observation, repeated, traffic

from edgefolio.decision.types import Action, Objectives, Reason, State


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
