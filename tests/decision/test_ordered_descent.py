"""Down to the standby as the operator ordered in advance: when, whose decision it is, and no flapping."""

from __future__ import annotations

from dataclasses import replace

import pytest
from building import NOW, decided, observation, traffic
from test_evidence import BUDGET, CALM, reading

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, Decision, Objectives, Observation, Reason, State

ORDERED = Objectives(
    latency_p95_milliseconds=BUDGET, pinned_variant="large", pin_is_order=True, descend_at_percent=125.0
)


def seen(factor: float, resident: tuple[str, ...] = ("tiny", "large")) -> Observation:
    window = traffic("large", factor=factor, readings=(reading(factor=factor),) * 4)
    return observation("large", resident_variants=resident, traffic=window)


def outcome(found: Observation, objectives: Objectives = ORDERED, *, state: State = CALM) -> tuple[Decision, State]:
    for second in range(3):
        decision, state = decided(found, objectives=objectives, state=state, now=NOW + second)
        if decision.action is Action.SWITCH:
            break
    return decision, state


def test_a_severe_violation_leaves_the_ordered_variant_for_the_standby() -> None:
    decision, state = outcome(seen(4.0))
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.LATENCY_VIOLATED, "tiny")
    assert "the order is to go down to tiny" in decision.message
    assert state.descent is not None


def test_where_nothing_would_do_the_standby_is_still_nearer() -> None:
    decision, _ = outcome(seen(50.0))
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")
    inaccurate = replace(ORDERED, min_accuracy_percent=90.0)
    assert outcome(seen(50.0), inaccurate)[0].reason is Reason.PINNED, "the minimum is a floor"


@pytest.mark.parametrize(
    ("found", "objectives", "state"),
    [
        (seen(2.3), ORDERED, CALM),
        (seen(4.0), replace(ORDERED, descend_at_percent=None), CALM),
        (seen(4.0), replace(ORDERED, pin_is_order=False), CALM),
        (seen(4.0, ("large",)), ORDERED, CALM),
        (seen(1.0), ORDERED, CALM),
        (replace(seen(4.0), traffic=None), ORDERED, CALM),
        (seen(4.0), ORDERED, replace(CALM, last_switch_at=NOW - 1)),
        (seen(4.0), ORDERED, replace(CALM, recent_switches=tuple(NOW - 60 * count for count in range(12)))),
    ],
    ids=[
        *("slight", "not ordered", "a person's pin", "no standby"),
        *("calm", "no metrics", "settling", "budget spent"),
    ],
)
def test_else_the_order_stands(found: Observation, objectives: Objectives, state: State) -> None:
    decision, _ = outcome(found, objectives, state=state)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PINNED)


def test_ordered_steps_bounce_and_wait_longer_each_time() -> None:
    """Large is ordered again and again; each time it must be left, the next step up waits longer."""
    state, waits = CALM, []
    for round_number in range(3):
        now = NOW + 1000 * round_number
        calm = observation("tiny", resident_variants=("tiny",), traffic=traffic("tiny"))
        decision, state = decided(calm, objectives=ORDERED, state=state, now=now)
        assert (decision.reason, decision.target) == (Reason.PINNED, "large")
        assert (state.upgraded_variant, state.upgraded_at) == ("large", now)
        state = state_after_switch(state, variant="large", now=now)
        for second in range(4, 8):
            decision, state = decided(seen(4.0), objectives=ORDERED, state=state, now=now + second)
            if decision.action is Action.SWITCH:
                break
        assert decision.target == "tiny"
        waits.append(state.upgrade_backoffs[0].until - now - second)
        state = state_after_switch(state, variant="tiny", now=now + second)
    assert waits == [10, 20, 40]
