"""A violation that is sure, and everything else that may be wrong: policy, pin, quarantine, clock, counters, budget."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from building import NOW, decided, memory, observation, quarantined, traffic
from simulator import SWITCHING
from test_evidence import BUDGET, CALM, reading

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, Decision, Objectives, Observation, Reason, StandbyReason, State

ASKED = Objectives(latency_p95_milliseconds=BUDGET)


def slow(factor: float = 4.0, *, resident: tuple[str, ...] = ("tiny", "large")) -> Observation:
    window = traffic("large", factor=factor, readings=(reading(factor=factor),) * 4)
    return observation("large", resident_variants=resident, traffic=window)


def after_seconds(
    seen: Observation, seconds: int = 3, *, state: State = CALM, **arguments: object
) -> tuple[Decision, State]:
    for second in range(seconds):
        decision, state = decided(seen, state=state, now=NOW + second, **{"objectives": ASKED, **arguments})  # type: ignore[arg-type]
        if decision.action is Action.SWITCH:
            break
    return decision, state


def test_without_a_fault_it_goes_down() -> None:
    decision, _ = after_seconds(slow())
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")


@pytest.mark.parametrize(("policy", "reason"), [("Recommend", Reason.RECOMMEND_ONLY), ("Paused", Reason.PAUSED)])
def test_a_policy_that_does_not_switch_says_so(policy: str, reason: Reason) -> None:
    decision, _ = after_seconds(slow(), switching=SWITCHING.model_copy(update={"policy": policy}))
    assert (decision.action, decision.reason) == (Action.HOLD, reason)


def test_a_person_s_pin_holds() -> None:
    decision, _ = after_seconds(slow(), objectives=replace(ASKED, pinned_variant="large"))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PINNED)


def test_a_quarantined_standby_is_none() -> None:
    state = replace(CALM, quarantined=quarantined("tiny", until=NOW + 500).quarantined)
    decision, _ = after_seconds(slow(), state=state)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.VIOLATION_TOO_SHORT)


def test_a_standby_that_does_not_fit_is_told_with_the_amounts() -> None:
    crowded = replace(
        observation("large", traffic=traffic("large", rate=2)), memory=memory(limit=1000, used=400, node=40)
    )
    decision, _ = decided(crowded, state=CALM, objectives=ASKED)
    assert decision.standby is not None
    assert decision.standby.reason is StandbyReason.INSUFFICIENT_STANDBY_MEMORY
    assert "MiB" in decision.standby.message


def test_a_violation_without_a_resident_variant_must_last() -> None:
    decision, _ = after_seconds(slow(resident=("large",)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.VIOLATION_TOO_SHORT)


@pytest.mark.parametrize("jump", [-3600.0, 86_400.0])
def test_a_clock_that_jumps_starts_the_evidence_anew_or_goes_on_but_never_acts_on_old(jump: float) -> None:
    _, state = decided(slow(2.2), state=CALM, objectives=ASKED, now=NOW)
    calm = observation("large", resident_variants=("tiny", "large"), traffic=traffic("large", readings=(reading(),)))
    decision, state = decided(calm, state=state, objectives=ASKED, now=NOW + jump)
    assert decision.action is Action.HOLD
    for second in range(1, 30):
        decision, state = decided(calm, state=state, objectives=ASKED, now=NOW + jump + second)
        assert decision.reason is not Reason.LATENCY_VIOLATED
    assert state.latency_test.weighted_level == 0


def test_counters_that_vanish_hold_and_a_long_gap_ends_the_evidence() -> None:
    seen = slow(2.6)
    decision, state = decided(replace(seen, traffic=traffic("large", readings=(reading(factor=2.6),))), state=CALM)
    for second in range(1, 40):
        decision, state = decided(replace(seen, traffic=None), state=state, objectives=ASKED, now=NOW + second)
        assert (decision.action, decision.reason) == (Action.HOLD, Reason.MISSING_METRICS)
    assert state.latency_test.readings > 0
    calm = observation("large", traffic=traffic("large", readings=(reading(),)))
    _, state = decided(calm, state=state, objectives=ASKED, now=NOW + 60)
    assert state.latency_test.readings == 0


def test_an_objective_that_is_no_number_tests_nothing() -> None:
    for milliseconds in (None, math.nan, math.inf, 0.0, -5.0):
        decision, state = after_seconds(slow(), objectives=Objectives(latency_p95_milliseconds=milliseconds))
        assert decision.message.endswith(".")
        assert math.isfinite(state.latency_test.weighted_level)


def test_a_neighbour_that_comes_and_goes_spends_no_more_than_the_budget() -> None:
    """Four hours of a neighbour every other half minute: each descent is cheap, and their number is bounded."""
    state, active, switches = CALM, "large", []
    for step in range(4 * 3600 // 2):
        now = NOW + 2 * step
        factor = 4.0 if step % 30 < 15 else 1.0
        window = traffic(active, factor=factor, rate=5, readings=())
        seen = observation(active, resident_variants=tuple(dict.fromkeys(("tiny", active))), traffic=window)
        decision, state = decided(seen, state=state, objectives=ASKED, now=now)
        if decision.action is Action.SWITCH:
            assert decision.target is not None
            active = decision.target
            switches.append(now)
            state = state_after_switch(state, variant=active, now=now)
    for index, first in enumerate(switches):
        assert sum(first <= other < first + 3600 for other in switches[index:]) <= SWITCHING.max_switches_per_hour
    assert len(switches) < 4 * SWITCHING.max_switches_per_hour, "the back-off makes it rarer than the budget"
