"""What the core remembers from cycle to cycle: as JSON, and when the clock jumps."""

from __future__ import annotations

import math

import pytest
from building import NOW, decided, observation, repeated, traffic
from hypothesis import given, settings
from strategies import states, wild

from edgefolio.decision import state_from_json, state_to_json
from edgefolio.decision.types import Action, Quarantine, Reason, State


@settings(max_examples=200)
@given(state=states(wild.map(lambda number: number + 0.0)))  # -0.0 is the default 0.0, and is left out like it
def test_state_survives_its_journey_as_json(state: State) -> None:
    assert repr(state_from_json(state_to_json(state))) == repr(state)


def test_state_of_another_release_is_read_and_nonsense_is_refused() -> None:
    assert state_from_json('{"computeFactor": 2.0, "newInTheNextRelease": [1]}') == State(compute_factor=2.0)
    for text in ("", "[]", '{"computeFactor": "fast"}', '{"recentSwitches": 5}'):
        with pytest.raises(ValueError):
            state_from_json(text)


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
