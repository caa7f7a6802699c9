"""Windows from counters, the server's own p95, memory from cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio_edge.observation.memory import GroupMemory, group_memory, observe_memory
from edgefolio_edge.observation.traffic import TrafficObserver
from edgefolio_edge.observation.triton_metrics import p95_in, pending_in
from edgefolio_edge.triton.client import VersionStatistics

MILLISECOND = 1_000_000


def reading(version: int = 101, *, requests: int, failures: int = 0, each: int = 4) -> VersionStatistics:
    """Counters after ``requests`` of ``each`` milliseconds: 1 queued, the rest computed."""
    return VersionStatistics(
        version=version,
        successes=requests,
        success_nanoseconds=requests * each * MILLISECOND,
        failures=failures,
        queue_nanoseconds=requests * MILLISECOND,
        compute_nanoseconds=requests * (each - 1) * MILLISECOND,
        executions=requests,
    )


def test_a_window_is_the_difference_over_the_last_seconds() -> None:
    observer = TrafficObserver(window_seconds=5)
    assert observer.window(now=0) is None
    for second in range(20):
        observer.add(reading(requests=100 * second), at=float(second))
    window = observer.window(now=19.25)
    assert window is not None
    assert (window.seconds, window.requests, window.executions) == (5, 500, 500)
    assert window.mean_queue_milliseconds == pytest.approx(1)
    assert window.mean_compute_milliseconds == pytest.approx(3)
    assert window.mean_total_milliseconds == pytest.approx(4)
    # Little's law: 100 requests a second of 4 ms each.
    assert window.in_flight == pytest.approx(0.4)
    assert window.age_seconds == pytest.approx(0.25)


@pytest.mark.parametrize("later", [reading(requests=3), reading(102, requests=500)])
def test_counters_that_fell_or_another_version_begin_a_new_baseline(later: VersionStatistics) -> None:
    observer = TrafficObserver(window_seconds=5)
    observer.add(reading(requests=100), at=0.0)
    observer.add(reading(requests=200), at=1.0)
    observer.add(later, at=2.0)
    assert observer.window(now=2.0) is None
    assert observer.latest() is None


def test_idle_has_a_window_without_requests() -> None:
    observer = TrafficObserver(window_seconds=5)
    observer.add(reading(requests=7), at=0.0)
    observer.add(reading(requests=7), at=1.0)
    window = observer.window(now=1.0)
    assert window is not None
    assert (window.requests, window.in_flight, window.mean_total_milliseconds) == (0, 0, 0)


def test_own_requests_among_users_are_taken_out_in_proportion() -> None:
    observer = TrafficObserver(window_seconds=60)
    observer.add(reading(requests=0), at=0.0)
    alone = observer.exclude(reading(requests=10), reading(requests=20), own_requests=5)
    assert not alone
    observer.add(reading(requests=30), at=10.0)
    window = observer.window(now=10.0)
    assert window is not None
    assert window.requests == 25


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=30))
def test_users_requests_are_never_lost_or_invented(cycles: list[tuple[int, int, int]]) -> None:
    observer = TrafficObserver(window_seconds=1e9)
    total = users = failures = 0
    observer.add(reading(requests=0), at=0.0)
    for at, (asked, own, refused) in enumerate(cycles, start=1):
        users, total, failures = users + asked, total + asked, failures + refused
        before = reading(requests=total, failures=failures)
        observer.add(before, at=at - 0.5)
        total += own
        assert observer.exclude(before, reading(requests=total, failures=failures), own_requests=own) or own == 0
        observer.add(reading(requests=total, failures=failures), at=float(at))
    window = observer.window(now=float(len(cycles)))
    assert window is not None
    assert (window.requests, window.failures) == (users, failures)


def test_p95_comes_from_the_versions_own_summary() -> None:
    text = (
        'nv_inference_request_summary_us{model="a",version="1",quantile="0.95"} 100\n'
        'nv_inference_request_summary_us{model="a",version="2",quantile="0.5"} 7\n'
        'nv_inference_request_summary_us{model="a",version="2",quantile="0.95"} 2500\n'
        'nv_inference_request_summary_us{model="a",version="3",quantile="0.95"} Nan\n'
        'nv_inference_queue_summary_us{model="a",version="4",quantile="0.95"} 9\n'
    )
    assert p95_in(text, model="a", version=2) == 2.5
    assert p95_in(text, model="a", version=3) is None
    assert p95_in(text, model="a", version=4) is None
    assert p95_in(text, model="b", version=2) is None
    assert p95_in(text.replace("}", ""), model="a", version=2) is None, "what is no metric is no p95"


def test_readings_are_what_came_since_they_were_taken_last() -> None:
    observer = TrafficObserver(window_seconds=5)
    for quarter in range(1, 13):
        observer.add(reading(requests=5 * quarter), at=quarter / 4, pending=quarter)
    window = observer.window(now=3.0)
    assert window is not None
    assert [entry.requests for entry in window.readings] == [5] * 11
    observer.take()
    assert observer.readings() == ()
    latest = observer.latest()
    assert latest is not None
    assert latest.successes == 5, "liveness asks for the last one even so"
    observer.add(reading(requests=60), at=3.25)
    observer.add(reading(requests=63), at=3.5, pending=7)
    idle, busy = observer.readings()
    assert (idle.requests, idle.pending, idle.mean_total_milliseconds) == (0, None, 0)
    assert (busy.seconds, busy.requests, busy.pending) == (0.25, 3, 7)
    assert busy.mean_total_milliseconds == pytest.approx(4)
    latest = observer.latest()
    assert latest is not None
    assert latest.successes == 3, "since the last cycle, however many readings that were"
    observer.exclude(reading(requests=63), reading(requests=67), own_requests=4)
    assert [entry.requests for entry in observer.readings()] == [0, 3]
    observer.add(reading(requests=67), at=3.75, pending=2)
    observer.take()
    for quarter in range(16, 35):
        assert observer.is_in_use, "a stall is no end of traffic"
        observer.add(reading(requests=67), at=quarter / 4, pending=2)
    observer.add(reading(requests=67), at=9.0)
    assert not observer.is_in_use
    observer.add(reading(requests=2), at=10.0)
    assert observer.readings() == (), "a restart begins anew"
    assert not observer.is_in_use


def test_the_requests_that_wait_are_read_by_version() -> None:
    text = (
        'nv_inference_pending_request_count{model="a",version="1"} 3\n'
        'nv_inference_pending_request_count{model="a",version="2"} 0\n'
        'nv_inference_pending_request_count{model="b",version="1"} Nan\n'
    )
    assert pending_in(text, model="a", version=1) == 3
    assert pending_in(text, model="a", version=2) == 0
    assert pending_in(text, model="b", version=1) is None
    assert pending_in("", model="a", version=1) is None


def _write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def test_the_tightest_limit_around_a_process_counts_version_2(tmp_path: Path) -> None:
    _write(tmp_path / "proc" / "7", cgroup="0::/pod/server\n")
    root = tmp_path / "group"
    _write(root / "pod", memory__max="1000\n", memory__current="700\n", memory__stat="anon 1\ninactive_file 100\n")
    _write(root / "pod/server", memory__max="max\n", memory__current="600\n", memory__stat="inactive_file 100\n")
    found = group_memory(7, root=root, processes=tmp_path / "proc")
    assert found == GroupMemory(limit_bytes=1000, working_set_bytes=600)
    _write(root / "pod/server", memory__max="800\n")
    found = group_memory(7, root=root, processes=tmp_path / "proc")
    assert found == GroupMemory(limit_bytes=800, working_set_bytes=500)


def test_the_tightest_limit_around_a_process_counts_version_1(tmp_path: Path) -> None:
    _write(tmp_path / "proc" / "7", cgroup="5:cpu:/x\n4:memory:/pod\n")
    directory = tmp_path / "group" / "memory" / "pod"
    names = {"memory__limit_in_bytes": "5000\n", "memory__usage_in_bytes": "3000\n"}
    _write(directory, **names, memory__stat="total_inactive_file 1000\n")
    found = group_memory(7, root=tmp_path / "group", processes=tmp_path / "proc")
    assert found == GroupMemory(limit_bytes=5000, working_set_bytes=2000)
    _write(directory, memory__limit_in_bytes="9223372036854771712\n")
    assert group_memory(7, root=tmp_path / "group", processes=tmp_path / "proc") is None


def test_memory_of_a_server_elsewhere_is_unknown() -> None:
    state = observe_memory(None, limit_bytes=123)
    assert (state.limit_bytes, state.working_set_bytes, state.node_available_bytes) == (123, None, None)
