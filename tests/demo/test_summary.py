"""The figures of the demonstration, on loads small enough to count by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from demo.clients import Record
from demo.story import COMPARED, TRIALS, placed
from demo.summary import (
    Switch,
    longest_gap_milliseconds,
    outside_objective_percent,
    percentile,
    slow_requests_percent,
    summarize,
)


def record(
    at: float, milliseconds: float, *, version: int = 101, by: int | None = 101, error: str | None = None
) -> Record:
    return Record(client="c", at=at, milliseconds=milliseconds, version=version, computed_by=by, error=error)


def test_percentile_is_the_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 95) == 96.0
    assert percentile([7.0], 99) == 7.0


def test_a_second_is_outside_when_its_p95_is_above_the_objective_of_that_second() -> None:
    records = [record(0.1, 5), record(1.1, 15), record(2.1, 15), record(3.1, 5, error="refused")]
    assert outside_objective_percent(records, [(0.0, 10.0), (2.0, 20.0)], 4.0) == pytest.approx(50.0)


def test_seconds_after_the_compared_part_do_not_count() -> None:
    records = [record(0.1, 5), record(5.1, 500)]
    assert outside_objective_percent(records, [(0.0, 10.0)], 1.0) == 0.0


def test_an_answer_of_another_version_than_stated_is_wrong_and_so_is_an_unknown_one() -> None:
    records = [record(0, 1), record(1, 1, by=102), record(2, 1, by=None), record(3, 1, error="x")]
    figures = summarize(records=records, switches=[], accuracy={101: 90.0}, objective_at=[(0, 10)], until=9)
    assert (figures.requests, figures.failed, figures.wrong_version) == (4, 1, 2)
    assert figures.mean_accuracy_percent == 90.0


def test_requests_near_a_switch_are_apart_from_the_steady_ones() -> None:
    switch = Switch(at=1.5, variant="small", reason="LatencyViolated", milliseconds=200)
    records = [record(0.5, 10), record(1.4, 80), record(2.0, 60), record(4.0, 11)]
    figures = summarize(records=records, switches=[switch], accuracy={101: 90.0}, objective_at=[(0, 50)], until=9)
    assert figures.p99_in_switch_windows_milliseconds == 80
    assert figures.p99_steady_milliseconds == 11
    assert figures.switches == 1


def test_slow_requests_are_judged_by_the_objective_of_their_time() -> None:
    records = [record(0.0, 15), record(1.0, 15), record(2.0, 9), record(9.0, 99)]
    assert slow_requests_percent(records, [(0.0, 20.0), (1.0, 10.0)], 9.0) == pytest.approx(100 / 3)
    assert slow_requests_percent([], [(0.0, 20.0)], 9.0) == 0.0


def test_the_longest_gap_counts_from_answer_to_answer() -> None:
    assert longest_gap_milliseconds([record(0.0, 100), record(0.5, 100), record(2.0, 500)]) == pytest.approx(1900)
    assert longest_gap_milliseconds([]) == 0.0


def test_phases_follow_each_other() -> None:
    phases = placed(COMPARED + TRIALS)
    assert phases[0].start == 0
    assert all(earlier.end == later.start for earlier, later in pairwise(phases))
