"""A changed latency objective is held against what is known of the variant that serves, at once."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from building import NOW, decided, observation, traffic
from hypothesis import given
from hypothesis import strategies as st
from strategies import wild

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, Decision, LatencyTest, Objectives, Reading, Reason, State

RESIDENT = ("tiny", "large")


def asked(milliseconds: float | None) -> Objectives:
    return Objectives(latency_p95_milliseconds=milliseconds)


def served(seconds: int, *, before: float | None, spread: float = 0.05, rate: float = 20.0) -> State:
    """The state after ``seconds`` of large at p95 12.5 ms under an objective of ``before``."""
    chance, state = random.Random(1), State()
    for second in range(seconds):
        factor = math.exp(chance.gauss(0.0, spread))
        _, state = decided(seen(factor, rate=rate), state=state, objectives=asked(before), now=NOW + second)
    return state


def seen(factor: float = 1.0, *, resident: tuple[str, ...] = RESIDENT, rate: float = 20.0):  # type: ignore[no-untyped-def]
    compute = 10.0 * factor
    reading = Reading(
        seconds=0.25,
        requests=round(rate / 4),
        mean_compute_milliseconds=compute,
        mean_queue_milliseconds=0.0,
        mean_total_milliseconds=compute + 0.5,
        pending=0,
    )
    window = traffic("large", factor=factor, rate=rate, readings=(reading,) * 4)
    return observation("large", resident_variants=resident, traffic=window)


def at_change(state: State, after: float | None, *, seconds: int, **arguments: object) -> Decision:
    return decided(seen(**arguments), state=state, objectives=asked(after), now=NOW + seconds)[0]  # type: ignore[arg-type]


def test_an_objective_that_is_surely_violated_is_met_at_once_by_what_is_resident() -> None:
    state = served(10, before=25.0)
    decision = at_change(state, 9.0, seconds=10)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.LATENCY_VIOLATED, "tiny")
    unchanged = at_change(state, 25.0, seconds=10)
    assert unchanged.reason is Reason.OBJECTIVES_MET
    new = at_change(served(10, before=None), 9.0, seconds=10)
    assert new.target == "tiny", "one where there was none is another one too"


def test_a_load_waits_as_long_as_ever() -> None:
    decision = at_change(served(10, before=25.0), 9.0, seconds=10, resident=("large",))
    assert decision.reason is Reason.VIOLATION_TOO_SHORT


def test_what_is_hardly_violated_or_hardly_known_waits() -> None:
    hardly = at_change(served(10, before=25.0), 12.2, seconds=10)
    assert hardly.reason is Reason.VIOLATION_TOO_SHORT
    few = at_change(served(10, before=25.0, rate=0.4), 9.0, seconds=10, rate=0.4)
    assert few.reason is Reason.VIOLATION_TOO_SHORT


def test_it_is_judged_once_and_another_variant_is_not_judged_by_it() -> None:
    state = served(10, before=25.0)
    moved = state_after_switch(state, variant="large", now=NOW + 9)
    assert moved.latency_test.known_seconds == 0
    _, after = decided(seen(resident=("large",)), state=state, objectives=asked(9.0), now=NOW + 10)
    assert after.latency_test.is_judged_anew
    _, later = decided(seen(resident=("large",)), state=after, objectives=asked(9.0), now=NOW + 11)
    assert not later.latency_test.is_judged_anew
    gap, _ = decided(seen(), state=state, objectives=asked(9.0), now=NOW + 500)
    assert gap.reason is Reason.VIOLATION_TOO_SHORT, "minutes of which nothing is known lie between"


@pytest.mark.parametrize("after", [12.6, 30.0, 1000.0])
def test_a_looser_objective_is_no_violation(after: float) -> None:
    decision = at_change(served(10, before=9.0), after, seconds=10)
    assert decision.reason not in (Reason.LATENCY_VIOLATED, Reason.SATURATED)


def test_changes_that_p95_just_meets_are_seldom_taken_for_a_violation() -> None:
    wrong = 0
    for seed in range(300):
        chance, state = random.Random(seed), State()
        for second in range(10):
            # The scatter of a window of a hundred requests.
            factor = math.exp(chance.gauss(0.0, 0.05))
            _, state = decided(seen(factor), state=state, objectives=asked(25.0), now=NOW + second)
        decision, _ = decided(
            seen(math.exp(chance.gauss(0.0, 0.05))), state=state, objectives=asked(12.5), now=NOW + 10
        )
        wrong += decision.action is Action.SWITCH
    assert wrong <= 6


@given(level=wild, seconds=wild, budget=st.none() | wild, before=st.none() | wild, scatter=wild)
def test_whatever_is_known_it_decides(level, seconds, budget, before, scatter) -> None:
    test = LatencyTest(known_level=level, known_seconds=seconds, budget=before, scatter=scatter)
    decision, state = decided(
        seen(), state=State(latency_test=test, observed_at=NOW - 1), objectives=asked(budget), now=NOW
    )
    assert decision.message.endswith(".")
    assert math.isfinite(state.latency_test.known_level)
    assert math.isfinite(state.latency_test.weight)
    decided(seen(), state=replace(state), objectives=asked(before), now=NOW + 1)
