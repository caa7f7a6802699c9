"""Signs of contention from control groups of both versions, pressure and steal time; each may be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefolio_edge.observation.contention import ContentionObserver


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _stat(steal: int) -> str:
    return f"cpu  100 0 100 1000 0 0 0 {steal} 0 0\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\nintr 5\n"


@pytest.mark.parametrize("version", [1, 2])
def test_shares_are_of_the_time_between_two_readings(tmp_path: Path, version: int) -> None:
    now = [100.0]
    group = tmp_path / ("group/pod/server" if version == 2 else "group/cpu,cpuacct/pod/server")

    def counters(*, throttled: float, pressed: float, stolen: int) -> None:
        key = f"throttled_usec {throttled * 1e6:.0f}" if version == 2 else f"throttled_time {throttled * 1e9:.0f}"
        _write(group / "cpu.stat", f"nr_throttled 4\n{key}\n")
        _write(group.parent / "cpu.stat", f"nr_throttled 0\n{key.split()[0]} 0\n")
        line = f"some avg10=1.00 avg60=1.00 avg300=0.00 total={pressed * 1e6:.0f}\n"
        _write(group / "cpu.pressure" if version == 2 else tmp_path / "proc/pressure/cpu", line)
        _write(tmp_path / "proc/stat", _stat(stolen))

    _write(tmp_path / "proc/7/cgroup", "0::/pod/server\n" if version == 2 else "3:cpu,cpuacct:/pod/server\n")
    counters(throttled=1, pressed=2, stolen=50)
    observer = ContentionObserver(7, root=tmp_path / "group", processes=tmp_path / "proc", clock=lambda: now[0])
    assert observer.observe() is None, "a share needs two readings"
    now[0] += 2
    counters(throttled=1.5, pressed=3, stolen=130)
    found = observer.observe()
    assert found is not None
    assert found == observer.last
    shares = [round(sign.percent, 6) for sign in (found.throttled, found.pressure, found.stolen) if sign]
    assert shares == [25.0, 50.0, 20.0]
    # Too soon for another share: the last stands, with its age.
    now[0] += 0.1
    again = observer.observe()
    assert again is not None
    assert again.throttled is not None
    assert (again.throttled.percent, round(again.throttled.age_seconds, 6)) == (25.0, 0.1)
    # One that cannot be read any more grows old; the others go on.
    (tmp_path / "proc/stat").write_text("nonsense\n")
    now[0] += 5
    late = observer.observe()
    assert late is not None
    assert late.pressure is not None
    assert late.stolen is not None
    assert (late.pressure.age_seconds, round(late.stolen.age_seconds, 6)) == (0, 5.1)


def test_where_nothing_can_be_read_nothing_is_said(tmp_path: Path) -> None:
    observer = ContentionObserver(7, root=tmp_path, processes=tmp_path)
    assert observer.observe() is None
    assert ContentionObserver(None).observe() is None
    _write(tmp_path / "7/cgroup", "no control group\n")
    _write(tmp_path / "stat", "cpu\n")
    assert ContentionObserver(7, root=tmp_path, processes=tmp_path).observe() is None
