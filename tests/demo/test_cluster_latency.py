"""The figures of the cluster's demonstration, on requests that can be counted by hand."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cluster"))

from demo.cluster.latency import Phase, last_slow_answer, p95, table
from edge_client import Request
from rich.console import Console

ONSET, OBJECTIVE = 1000.0, 30.0


def requests(
    slow_seconds: float, *, seconds: float = 60.0, also: tuple[float, ...] = (), before: float = 10.0
) -> list[Request]:
    """Eight requests a second from before the onset on, slow for so long after it, and at these seconds as well."""
    times = [ONSET - before + number / 8 for number in range(int(8 * (before + seconds)))]
    return [
        Request(
            due=at,
            milliseconds=90.0 if ONSET <= at <= ONSET + slow_seconds or at - ONSET in also else 10.0,
            version=101,
            error=None,
        )
        for at in times
    ]


@pytest.mark.parametrize("slow", [0.5, 4.0, 12.25])
def test_the_time_to_the_last_slow_answer(slow: float) -> None:
    assert last_slow_answer(requests(slow), onset=ONSET, objective=OBJECTIVE) == slow


def test_without_a_slow_answer_it_is_nothing() -> None:
    assert last_slow_answer(requests(-1), onset=ONSET, objective=OBJECTIVE) == 0.0
    # What was slow before is not this neighbour's doing.
    early = [request for request in requests(5.0) if request.due < ONSET]
    assert last_slow_answer(early, onset=ONSET, objective=OBJECTIVE) == 0.0


def test_single_slow_answers_later_are_another_matter() -> None:
    assert last_slow_answer(requests(3.0, also=(20.0, 33.5)), onset=ONSET, objective=OBJECTIVE) == 3.0


def test_a_pause_too_short_to_be_an_end() -> None:
    again = tuple(number / 8 for number in range(48, 72))
    assert last_slow_answer(requests(3.0, also=again), onset=ONSET, objective=OBJECTIVE) == again[-1]


def test_trouble_that_does_not_end() -> None:
    assert last_slow_answer(requests(60.0), onset=ONSET, objective=OBJECTIVE) is None
    # The record ends before it is known.
    assert last_slow_answer(requests(57.0), onset=ONSET, objective=OBJECTIVE) is None


def test_a_failed_request_is_slow() -> None:
    failed = Request(due=ONSET + 2.0, milliseconds=1.0, version=None, error="Unavailable")
    others = [request for request in requests(-1) if request.due != failed.due]
    assert Phase(name="x", start=ONSET, end=ONSET + 3).of([failed]) == [failed]
    assert last_slow_answer([failed] * 8 + others, onset=ONSET, objective=OBJECTIVE) == 2.0


def test_the_table_counts_by_phase_and_node() -> None:
    phases = [Phase(name="before", start=ONSET - 10, end=ONSET), Phase(name="busy", start=ONSET, end=ONSET + 10)]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(phases, {"edge-1": requests(-1), "edge-2": requests(4.875)}, objective=OBJECTIVE))
    rows = [line.split() for line in console.export_text().splitlines() if "edge-" in line]
    cells = [[cell for cell in row if cell != "│"] for row in rows]
    assert cells[1] == ["before", "edge-2", "10", "80", "0", "10", "10", "0", "%", "101"]
    assert cells[3] == ["busy", "edge-2", "10", "80", "0", "90", "90", "50", "%", "101"]
    assert math.isnan(p95([]))
