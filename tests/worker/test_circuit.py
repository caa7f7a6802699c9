"""The circuit: it opens at once, closes after three good probes, and no flapping peer keeps it moving."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio_worker.protocol.circuit import GOOD_PROBES, LONGEST_WAIT_SECONDS, Circuit
from edgefolio_worker.protocol.patience import abandon_milliseconds, probe_milliseconds


def closed(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    circuit.peers_alive(now)
    for _ in range(GOOD_PROBES):
        assert circuit.may_probe(now)
        circuit.probed(now, is_good=True)
    assert circuit.is_closed
    return circuit


def test_it_forms_as_soon_as_its_peers_are_there() -> None:
    circuit = Circuit()
    assert (circuit.is_closed, circuit.reason, circuit.may_probe(9.0)) == (False, "forming", False)
    assert closed().reason is None


def test_a_lost_peer_opens_it_at_once_and_probes_wait_for_its_return() -> None:
    circuit = closed()
    circuit.peers_lost("closed", 10.0)
    assert circuit.reason == "closed"
    assert not circuit.may_probe(100.0)
    circuit.peers_alive(100.0)
    assert circuit.may_probe(100.0)
    circuit.peers_lost("bye", 100.1)
    circuit.probed(100.2, is_good=True)
    assert circuit.reason == "bye"


def test_two_abandoned_jobs_in_a_row_open_it() -> None:
    circuit = closed()
    circuit.abandoned(1.0)
    circuit.answered()
    circuit.abandoned(2.0)
    assert circuit.is_closed
    circuit.abandoned(3.0)
    assert circuit.reason == "abandoned"
    assert not circuit.may_probe(3.9)
    assert circuit.may_probe(4.0)


def test_probes_that_fail_are_further_and_further_apart_and_good_ones_must_follow_each_other() -> None:
    circuit = closed()
    circuit.abandoned(0.0)
    circuit.abandoned(0.0)
    now, waits = 0.0, []
    for _ in range(8):
        due = next(at for at in (now + step / 10 for step in range(10_000)) if circuit.may_probe(at))
        waits.append(due - now)
        now = due
        circuit.probed(now, is_good=False)
    assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
    now += LONGEST_WAIT_SECONDS
    for is_good in (True, True, False):
        assert circuit.may_probe(now)
        circuit.probed(now, is_good=is_good)
    assert not circuit.may_probe(now)
    assert not circuit.is_closed
    # Two good ones before a bad one count for nothing.
    now += LONGEST_WAIT_SECONDS
    circuit.probed(now, is_good=True)
    assert not circuit.is_closed
    circuit.probed(now, is_good=False)
    # A peer that was away and is back is tried soon.
    circuit.peers_lost("closed", now)
    circuit.peers_alive(now)
    assert circuit.may_probe(now + 1.0)


@given(st.lists(st.tuples(st.sampled_from(["alive", "lost", "abandoned", "good", "bad"]), st.floats(0, 0.5))))
def test_whatever_happens_it_never_closes_twice_within_a_second(events: list[tuple[str, float]]) -> None:
    circuit, now, opened = Circuit(), 0.0, None
    for event, passed in events:
        now += passed
        was_closed = circuit.is_closed
        match event:
            case "alive":
                circuit.peers_alive(now)
            case "lost":
                circuit.peers_lost("closed", now)
            case "abandoned":
                circuit.abandoned(now)
            case _ if circuit.may_probe(now):
                circuit.probed(now, is_good=event == "good")
        if was_closed and not circuit.is_closed:
            assert event in ("lost", "abandoned")
            opened = now
        if circuit.is_closed and not was_closed:
            assert event == "good"
            assert opened is None or now - opened >= 1.0 - 1e-9


@given(st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.floats(0.1, 1e4))
def test_who_waits_as_long_as_it_may_still_falls_back_in_time(predicted: float, budget: float, fallback: float) -> None:
    waited, is_in_time = abandon_milliseconds(predicted, budget=budget, fallback=fallback)
    if is_in_time:
        assert waited >= predicted
        assert waited + fallback == pytest.approx(budget)
    else:
        assert predicted + fallback > budget
        assert waited == max(50.0, 2 * predicted)


def test_without_an_objective_five_times_the_prediction_is_waited() -> None:
    assert abandon_milliseconds(3.0) == (100.0, True)
    assert abandon_milliseconds(30.0) == (150.0, True)
    assert abandon_milliseconds(5.0, budget=10.0, fallback=8.0) == (50.0, False)
    assert [probe_milliseconds(each) for each in (1.0, 40.0)] == [50.0, 80.0]
