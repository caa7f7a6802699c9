"""The way back after a step down to what was resident: sooner than any other step up, and bounded."""

from __future__ import annotations

from dataclasses import replace

from building import NOW, decided, observation, repeated, traffic
from simulator import SWITCHING

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, Descent, Objectives, Reason, State

LEFT = State(
    calm_since=NOW - 60,
    observed_at=NOW - 1,
    last_switch_at=NOW - 60,
    descent=Descent(variant="large", at=NOW - 60),
)
ASKED = Objectives(latency_p95_milliseconds=30.0)


def test_what_was_left_for_the_standby_is_taken_again_after_the_time_of_the_way_down() -> None:
    calm = observation("small", resident_variants=("small",), traffic=traffic("small", rate=2))
    decision, state = repeated(calm, seconds=40, state=LEFT, objectives=ASKED)
    assert (decision.reason, decision.target) == (Reason.MORE_ACCURATE_FITS, "large")
    assert f"for {SWITCHING.down_after_seconds} s" in decision.message
    assert state.descent is None
    other, _ = repeated(calm, seconds=40, state=replace(LEFT, descent=None), objectives=ASKED)
    assert f"for {SWITCHING.up_after_seconds} s" in other.message, "a step up that returns from nothing waits as before"


def test_it_does_not_dwell_and_is_in_the_budget() -> None:
    calm = observation("small", resident_variants=("small",), traffic=traffic("small", rate=2))
    slow_to_dwell = SWITCHING.model_copy(update={"min_dwell_seconds": 600})
    lately = replace(LEFT, last_switch_at=NOW - 4)
    decision, _ = repeated(calm, seconds=6, state=lately, objectives=ASKED, switching=slow_to_dwell)
    assert (decision.reason, decision.target) == (Reason.MORE_ACCURATE_FITS, "large")
    other, _ = repeated(calm, seconds=60, state=replace(lately, descent=None), switching=slow_to_dwell)
    assert other.reason is Reason.MIN_DWELL, "any other step up does"
    spent = replace(LEFT, recent_switches=tuple(NOW - 60 * count for count in range(11)))
    decision, _ = repeated(calm, seconds=20, state=spent, objectives=ASKED)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.SWITCH_BUDGET_SPENT)


def test_of_several_steps_down_the_way_back_leads_to_where_they_began() -> None:
    slow = observation("small", resident_variants=("tiny", "small"), traffic=traffic("small", factor=7.0, rate=5))
    decision, state = repeated(slow, seconds=20, state=LEFT, objectives=ASKED)
    assert decision.target == "tiny"
    assert state.descent is not None
    assert state.descent.variant == "large"
    state = state_after_switch(state, variant="tiny", now=state.descent.at)
    calm = observation("tiny", traffic=traffic("tiny", rate=2))
    decision, _ = repeated(calm, seconds=40, state=state, objectives=ASKED, now=state.last_switch_at + 20)
    assert decision.target == "large"
    assert f"for {SWITCHING.down_after_seconds} s" in decision.message


def test_a_return_that_does_not_hold_waits_twice_as_long_each_time_and_one_that_held_does_not() -> None:
    state, waits = State(), []
    for stays in (5, 5, 5, 25):
        start = NOW + 1000 * len(waits) + stays
        state = replace(state, upgraded_variant="large", upgraded_at=start - stays, last_switch_at=None)
        slow = observation("large", resident_variants=("tiny", "large"), traffic=traffic("large", factor=6.0, rate=5))
        decision, state = repeated(slow, seconds=10, state=replace(state, recent_switches=()), now=start)
        assert decision.target == "tiny"
        backoff = next((entry for entry in state.upgrade_backoffs if entry.variant == "large"), None)
        waits.append(0 if backoff is None else round(backoff.until - start))
    # minDwellSeconds is 10: left within twice of it, it bounced.
    assert [wait // 10 for wait in waits] == [1, 2, 4, 0]


def test_a_flapping_neighbour_of_any_period_gets_no_more_switches_than_the_budget() -> None:
    for period in (24, 40, 90, 400):
        state, active, switches = State(), "large", []
        for second in range(3 * 3600):
            slow = second % period >= period // 2
            seen = observation(
                active,
                resident_variants=tuple({"tiny", active}),
                traffic=traffic(active, factor=6.0 if slow else 1.0, rate=5),
            )
            decision, state = decided(seen, state=state, objectives=ASKED, now=NOW + second)
            if decision.action is Action.SWITCH:
                assert decision.target is not None
                active = decision.target
                switches.append(second)
                state = state_after_switch(state, variant=active, now=NOW + second)
        for hour in range(3):
            within = [at for at in switches if 3600 * hour <= at < 3600 * (hour + 1)]
            assert len(within) <= SWITCHING.max_switches_per_hour, (period, hour)
