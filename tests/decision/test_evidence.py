"""The sequential test of a violation: how soon it is sure, how seldom it errs, and what it makes of nonsense."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from building import NOW, by_name, decided, observation, traffic
from hypothesis import given
from hypothesis import strategies as st
from strategies import wild

from edgefolio.decision.evidence import READING_SECONDS, SURE, forgotten, threshold, verdict_of, with_readings
from edgefolio.decision.types import Action, Contention, LatencyTest, Objectives, Reading, Reason, Signal, State

BUDGET = 25.0
LARGE = by_name("large")
CALM = State(calm_since=NOW - 60, observed_at=NOW - READING_SECONDS)


def reading(
    *, factor: float = 1.0, requests: int = 5, queue: float = 0.0, pending: int | None = None, seconds: float = 0.25
) -> Reading:
    compute = LARGE.mean_milliseconds * factor if requests else 0.0
    return Reading(
        seconds=seconds,
        requests=requests,
        mean_compute_milliseconds=compute,
        mean_queue_milliseconds=queue,
        mean_total_milliseconds=compute + queue + 0.5 if requests else 0.0,
        pending=pending,
    )


def after(readings: list[Reading], test: LatencyTest | None = None) -> LatencyTest:
    return with_readings(test or LatencyTest(), readings, profile=LARGE, budget=BUDGET)


def is_sure(test: LatencyTest) -> bool:
    return verdict_of(test, budget=BUDGET, min_requests=10, sure=SURE).is_sure


def readings_until_sure(factor: float, *, calm: int = 0, requests: int = 5, most: int = 400) -> int | None:
    test = after([reading(requests=requests)] * calm)
    for count in range(1, most):
        test = after([reading(factor=factor, requests=requests)], test)
        if is_sure(test):
            return count
    return None


def test_a_severe_violation_is_sure_within_a_second_and_a_slight_one_is_not() -> None:
    # A quiet endpoint that gets three times slower: 36.5 of 25 ms.
    assert (readings_until_sure(3.0, calm=40) or 99) * READING_SECONDS <= 1.0
    assert (readings_until_sure(8.0) or 99) * READING_SECONDS <= 1.0, "of which nothing is known yet"
    slight = readings_until_sure(2.1, calm=40)
    assert slight is None or slight * READING_SECONDS > 10
    counts = [readings_until_sure(factor, calm=40) or 999 for factor in (2.2, 2.5, 3.0, 5.0, 20.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 2, "one reading never decides"


def test_few_requests_take_longer() -> None:
    few, many = readings_until_sure(6.0, requests=1), readings_until_sure(6.0, requests=5)
    assert few is not None
    assert many is not None
    assert few > many
    assert readings_until_sure(6.0, requests=500) == many, "requests that come together count as a few"


def test_scatter_around_the_objective_is_taken_for_a_violation_less_than_once_a_day() -> None:
    """Hours of independent readings at the objective, and below it, with the scatter that the test expects."""
    chance = random.Random(1)
    for level, seen in ((0.0, 5), (-0.1, 5), (-0.5, 1)):
        spread = math.sqrt(0.02 + 0.25 / seen)
        alarms, test = 0, LatencyTest(calm_level=math.log(BUDGET) + level)
        for _ in range(20_000):
            factor = (BUDGET - 0.5) / 12.0 * math.exp(chance.gauss(level, spread))
            test = replace(
                after([reading(factor=factor, requests=seen)], test),
                scatter=0.25,
                calm_level=math.log(BUDGET) + level,
            )
            if is_sure(test):
                alarms, test = alarms + 1, forgotten(test)
        assert alarms == 0, level


def test_bursts_that_end_by_themselves_make_it_more_patient() -> None:
    test = after([reading()] * 40)
    quiet = test.scatter
    for _ in range(30):
        test = after([*[reading()] * 20, *[reading(factor=2.6)] * 2], test)
        assert not is_sure(test)
    test = after([reading()] * 8, test)
    assert test.scatter > 1.5 * quiet
    assert test.weighted_level == 0


def test_what_waits_counts_before_it_is_answered() -> None:
    stalled = [reading(), *[reading(requests=0, pending=4)] * 4]
    assert is_sure(after(stalled))
    assert not is_sure(after([reading(), *[reading(requests=0, pending=0)] * 20])), "nobody waits"
    assert not is_sure(after([reading(), *[reading(requests=0)] * 20])), "nobody knows"
    growing = [reading(queue=5, pending=pending) for pending in range(4, 40, 5)]
    assert is_sure(after(growing)), "the last in the queue waits for all before it"
    assert not is_sure(after([replace(entry, pending=None) for entry in growing]))


def test_an_endpoint_goes_down_to_its_standby_within_a_second() -> None:
    asked = Objectives(latency_p95_milliseconds=BUDGET)

    def seen(factor: float, resident: tuple[str, ...] = ("small", "large")):  # type: ignore[no-untyped-def]
        # The window still holds mostly what was before.
        window = traffic("large", factor=1 + (factor - 1) / 10, readings=(reading(factor=factor),))
        return observation("large", resident_variants=resident, traffic=window)

    state = CALM
    for step in range(40):
        decision, state = decided(seen(1.0), state=state, objectives=asked, now=NOW + step * READING_SECONDS)
        assert decision.reason is not Reason.LATENCY_VIOLATED
    onset, alone = NOW + 10, state
    for step in range(1, 5):
        now = onset + step * READING_SECONDS
        decision, state = decided(seen(3.0), state=state, objectives=asked, now=now)
        if decision.action is Action.SWITCH:
            break
    assert (decision.reason, decision.target) == (Reason.LATENCY_VIOLATED, "small")
    # Where it would have to be loaded, the violation must last.
    for step in range(1, 5):
        now = onset + step * READING_SECONDS
        decision, alone = decided(seen(3.0, ("large",)), state=alone, objectives=asked, now=now)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.VIOLATION_TOO_SHORT)


def test_a_prediction_on_the_way_down_believes_the_latest_reading() -> None:
    asked = Objectives(latency_p95_milliseconds=BUDGET)
    window = traffic("large", factor=1.5, readings=(reading(factor=9.0),))
    decision, _ = decided(observation("large", traffic=window), objectives=asked, state=CALM)
    tiny = next(entry for entry in decision.predictions if entry.variant == "tiny")
    assert tiny.p95_milliseconds is not None
    assert tiny.p95_milliseconds > 9 * 2


@pytest.mark.parametrize("sign", ["throttled", "pressure", "stolen"])
def test_contention_makes_a_violation_sure_sooner_and_is_no_reason_by_itself(sign: str) -> None:
    fresh, stale, little = (
        Contention(**{sign: Signal(percent=percent, age_seconds=age)})
        for percent, age in ((60.0, 0.0), (60.0, 9.0), (0.5, 0.0))
    )
    assert threshold(None) == threshold(Contention()) == threshold(stale) == threshold(little) == SURE
    assert threshold(fresh) < SURE
    assert threshold(Contention(**{sign: Signal(percent=math.nan, age_seconds=math.nan)})) == SURE
    calm = observation("large", resident_variants=("small", "large"), contention=fresh)
    state = CALM
    for step in range(200):
        decision, state = decided(calm, state=state, now=NOW + step * READING_SECONDS)
        assert decision.reason is not Reason.LATENCY_VIOLATED
    test = after([reading()] * 40)
    sure = []
    for contention in (None, fresh):
        found, count = test, 0
        while not verdict_of(found, budget=BUDGET, min_requests=10, sure=threshold(contention)).is_sure:
            found, count = after([reading(factor=2.3)], found), count + 1
        sure.append(count)
    assert sure[1] <= sure[0]


@given(
    rows=st.lists(st.tuples(wild, st.integers(-5, 2**60), wild, wild, wild, st.none() | st.integers(-5, 2**60))),
    test=st.builds(
        LatencyTest, weighted_level=wild, weight=wild, readings=st.integers(-5, 9), scatter=wild, calm_level=wild
    ),
    budget=wild,
)
def test_whatever_the_readings_and_the_state_hold_it_decides(rows, test, budget) -> None:
    readings = tuple(
        Reading(
            seconds=row[0],
            requests=row[1],
            mean_compute_milliseconds=row[2],
            mean_queue_milliseconds=row[3],
            mean_total_milliseconds=row[4],
            pending=row[5],
        )
        for row in rows
    )
    window = traffic("large", readings=readings)
    decision, state = decided(
        observation("large", traffic=window),
        state=State(latency_test=test, observed_at=NOW - 1),
        objectives=Objectives(latency_p95_milliseconds=budget),
    )
    assert decision.message.endswith(".")
    decided(observation("large"), state=state, now=NOW + 1)
    kept = state.latency_test
    assert all(math.isfinite(value) for value in (kept.weighted_level, kept.weight, kept.scatter, kept.squares))


def test_the_threshold_is_the_number_of_readings_of_a_day() -> None:
    assert pytest.approx(345_600) == math.exp(SURE)
