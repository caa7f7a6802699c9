"""Variants that fail, and the quarantine of those that did."""

from __future__ import annotations

from building import NOW, observation, quarantined, repeated, traffic
from simulator import SWITCHING

from edgefolio.decision import state_after_failure, state_after_switch
from edgefolio.decision.state import sanitized
from edgefolio.decision.types import Action, Reason, State


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


def test_quarantine_doubles_and_is_forgotten_long_after() -> None:
    state = state_after_failure(State(), variant="mid", cause="load failed", now=NOW, switching=SWITCHING)
    assert state.quarantined[0].until == NOW + 60
    state = state_after_failure(state, variant="mid", cause="load failed", now=NOW + 70, switching=SWITCHING)
    assert state.quarantined[0].until == NOW + 70 + 120
    state = state_after_switch(state, variant="mid", now=NOW + 200)
    assert state.quarantined[0].failures == 2
    assert sanitized(state, now=NOW + 300, switching=SWITCHING).quarantined
    assert not sanitized(state, now=NOW + 70 + 241, switching=SWITCHING).quarantined


def test_a_quarantined_variant_is_not_taken() -> None:
    decision, _ = repeated(observation("mid"), state=quarantined("large"), seconds=45)
    assert decision.reason is Reason.OBJECTIVES_MET
    decision, _ = repeated(observation("mid"), state=quarantined("large"), seconds=90)
    assert decision.target == "large"
