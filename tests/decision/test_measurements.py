"""Which measurements are believed, and what the core makes of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from building import NOW, by_name, decided, memory, observation, repeated, traffic

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, ProbeResult, Reason, ServerState, State


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


def test_the_decision_shows_its_evidence() -> None:
    decision, _ = decided(observation(traffic=traffic(factor=2)))
    assert decision.compute_factor == pytest.approx(2.0)
    assert decision.transport_milliseconds == pytest.approx(0.5)
    assert decision.arrival_rate == 20
    assert [entry.variant for entry in decision.predictions] == ["tiny", "small", "mid", "large"]
    assert decision.objectives_met is True
    assert by_name("large").p95_milliseconds == 12
