"""What readings tell of computing: the scatter of single requests, and that the node has surely become faster."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from building import NOW, by_name, decided, observation, traffic
from hypothesis import given
from hypothesis import strategies as st
from strategies import wild

from edgefolio.decision import state_after_switch
from edgefolio.decision.estimates.computing import MOST_VARIABILITY, variability_of, with_computing
from edgefolio.decision.estimates.prediction import p95_by_mean, service_variability
from edgefolio.decision.evidence import READING_SECONDS, SURE
from edgefolio.decision.types import Computing, Objectives, Reading, State

SMALL = by_name("small")


def reading(milliseconds: float, *, requests: int = 5) -> Reading:
    return Reading(
        seconds=READING_SECONDS,
        requests=requests,
        mean_compute_milliseconds=milliseconds,
        mean_queue_milliseconds=0.0,
        mean_total_milliseconds=milliseconds + 0.5,
        pending=0,
    )


def scattered(chance: random.Random, variability: float, *, factor: float = 1.0, requests: int = 5) -> Reading:
    """A reading of log-normal times with this squared coefficient of variation."""
    square = math.log1p(variability)
    times = [
        SMALL.mean_milliseconds * factor * math.exp(chance.gauss(-square / 2, math.sqrt(square)))
        for _ in range(requests)
    ]
    return reading(sum(times) / requests, requests=requests)


@pytest.mark.parametrize(("variability", "requests"), [(0.02, 5), (0.2, 5), (0.2, 2), (0.5, 5)])
def test_the_scatter_of_single_requests_is_found(variability: float, requests: int) -> None:
    found = []
    for seed in range(20):
        chance = random.Random(seed)
        readings = [scattered(chance, variability, factor=3.0, requests=requests) for _ in range(80)]
        state, _ = with_computing(State(compute_factor=3.0), readings, profile=SMALL, sure=SURE)
        found.append(variability_of(state, SMALL))
    mean = sum(found) / len(found)
    assert 0.6 * variability < mean < 1.4 * variability


def test_a_level_that_drifts_is_no_scatter() -> None:
    state = State()
    for step in range(200):
        state, _ = with_computing(state, [reading(4.0 * 1.01**step)], profile=SMALL, sure=SURE)
    assert variability_of(state, SMALL) < 2 * service_variability(SMALL)


def test_few_readings_say_little_and_another_variant_begins_anew() -> None:
    jump = [reading(4.0), reading(12.0)]
    state, _ = with_computing(State(), jump, profile=SMALL, sure=SURE)
    assert variability_of(state, SMALL) < state.computing.variability / 2
    assert variability_of(State(), SMALL) == 0.0
    assert state_after_switch(state, variant="tiny", now=NOW).computing == Computing()


def test_a_node_that_becomes_faster_is_believed_within_a_second_and_a_hiccup_is_not() -> None:
    chance = random.Random(1)
    slow = [scattered(chance, 0.2, factor=4.0) for _ in range(40)]
    state, recovered = with_computing(State(compute_factor=4.0), slow, profile=SMALL, sure=SURE)
    assert not recovered
    one, recovered = with_computing(state, [reading(4.0)], profile=SMALL, sure=SURE)
    assert (recovered, one.compute_factor) == (False, 4.0)
    quick, recovered = with_computing(state, [reading(4.0)] * 4, profile=SMALL, sure=SURE)
    assert recovered
    assert 0.9 < quick.compute_factor < 1.5
    assert quick.computing.pairs < 4, "what the slow time showed of scatter says nothing of this one"


def test_a_steady_node_is_taken_for_a_faster_one_less_than_once_a_day() -> None:
    chance = random.Random(2)
    state, alarms = State(), 0
    for _ in range(20_000):
        state, recovered = with_computing(state, [scattered(chance, 0.1)], profile=SMALL, sure=SURE)
        alarms += recovered
        state = replace(state, compute_factor=1.0)
    assert alarms == 0


def test_on_a_node_where_requests_scatter_a_step_up_must_fit_with_their_scatter() -> None:
    """Under a neighbour that interrupts some requests and others not, p95 is far above what an idle profile says."""
    asked, predicted = Objectives(latency_p95_milliseconds=30.0), {}
    for variability in (0.01, 0.3):
        chance, state = random.Random(3), State()
        for step in range(60):
            readings = tuple(scattered(chance, variability, factor=3.0) for _ in range(4))
            window = traffic("small", factor=3.0, readings=readings)
            decision, state = decided(
                observation("small", traffic=window), state=state, objectives=asked, now=NOW + step
            )
        predicted[variability] = {entry.variant: entry for entry in decision.predictions}
    assert predicted[0.01]["mid"].meets_latency
    assert not predicted[0.3]["mid"].meets_latency
    active = predicted[0.3]["small"].p95_milliseconds
    assert active is not None
    assert active > 1.3 * (predicted[0.01]["small"].p95_milliseconds or math.inf), "and so does what serves"


@given(first=st.floats(0, 1e9), second=st.floats(0, 1e9))
def test_more_scatter_never_means_a_lower_percentile_up_to_the_most(first: float, second: float) -> None:
    low, high = sorted(min(value, MOST_VARIABILITY) for value in (first, second))
    assert p95_by_mean(SMALL, variability=low) <= p95_by_mean(SMALL, variability=high)


@given(
    rows=st.lists(st.tuples(wild, st.integers(-5, 2**60), wild)),
    known=st.builds(
        Computing,
        variability=wild,
        pairs=wild,
        last=st.none() | wild,
        last_requests=wild,
        weighted_change=wild,
        weight=wild,
    ),
    factor=wild,
)
def test_whatever_readings_and_state_hold_it_decides(rows, known, factor) -> None:
    readings = tuple(
        Reading(
            seconds=row[0],
            requests=row[1],
            mean_compute_milliseconds=row[2],
            mean_queue_milliseconds=0.0,
            mean_total_milliseconds=row[2],
        )
        for row in rows
    )
    seen = observation("small", traffic=traffic("small", readings=readings))
    decision, state = decided(seen, state=State(computing=known, compute_factor=factor, observed_at=NOW - 1))
    assert decision.message.endswith(".")
    assert 0 < state.compute_factor < math.inf
    assert all(math.isfinite(value) for value in (state.computing.variability, state.computing.weighted_change))
