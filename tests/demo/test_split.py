"""The demonstration of a split: its figures by hand, and all of it on loopback with a portfolio of a tiny net."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from demo.split.client import counted, who
from demo.split.digits import ENLARGED, enlarged
from demo.split.figures import Act, checks, figures
from demo.split.requests import FAILED, WRONG, Request, requests_in

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "triton"))

NAMES = {"split": "split-two", "fallback": "small"}


def act(name: str, start: float, end: float, *, disturbs: bool = False) -> Act:
    return Act(name=name, start=start, end=end, disturbs=disturbs, split_must_answer=not disturbs)


def asked(at: float, milliseconds: float, by: str) -> Request:
    return Request(at, at + milliseconds / 1e3, by)


SOUND = [asked(0, 5, "split-two"), asked(1, 4, "split-two"), asked(2, 60, "small"), asked(3, 2, "small")]
SOUND.append(asked(4, 6, "split-two"))
ACTS = [act("both", 0, 2), act("killed", 2, 4, disturbs=True), act("both", 4, 5)]
COUNTS = {"before": {"fallback": 1}, "after": {"split": 3, "fallback": 3}}


def failing(requests: list[Request], counts: dict[str, dict[str, int]] = COUNTS) -> list[str]:
    found = figures(requests, ACTS, objective=50, **NAMES)
    return [each.name for each in checks(requests, found, counts, **NAMES) if not each.passed]


def test_each_act_counts_what_was_sent_in_it() -> None:
    before, killed, after = figures(SOUND, ACTS, objective=50, **NAMES)
    assert (before.requests, before.by_split, before.by_fallback, before.late) == (2, 2, 0, 0)
    assert (killed.requests, killed.by_split, killed.by_fallback, killed.late) == (2, 0, 2, 1)
    assert killed.longest_milliseconds == pytest.approx(60)
    assert (after.requests, after.failed, after.nobodys) == (1, 0, 0)


def test_an_act_without_requests_has_no_times() -> None:
    (empty,) = figures([], [act("both", 0, 1)], objective=50, **NAMES)
    assert (empty.requests, empty.p50_milliseconds, empty.longest_milliseconds) == (0, None, None)


def test_a_sound_run_holds_and_every_fault_of_one_is_named() -> None:
    assert failing(SOUND) == []
    assert "no failed request" in failing([*SOUND, asked(4.5, 1, FAILED)])
    assert "no failed request" in failing([])
    for other in (WRONG, "another-variant"):
        assert any("every answer" in name for name in failing([*SOUND, asked(4.5, 1, other)]))
    assert any("the split answers" in name for name in failing([each for each in SOUND if each.sent < 4]))
    assert failing(SOUND, {"before": {}, "after": {"split": 3, "fallback": 3}}) == [
        "the worker's metrics say of who answered what the answers say"
    ]


def test_an_answer_is_whose_it_is_nearest_to_and_nobodys_beyond_the_tolerance() -> None:
    expected = {"split-two": np.array([[1.0, 2.0]]), "small": np.array([[3.0, 2.0]])}
    assert who(np.array([[1.05, 2.0]]), expected, tolerance=0.1) == "split-two"
    assert who(np.array([[3.0, 1.95]]), expected, tolerance=0.1) == "small"
    for strange in ([[2.0, 2.0]], [[np.nan, 2.0]], [[1.0, 2.0], [1.0, 2.0]]):
        assert who(np.array(strange), expected, tolerance=0.1) == WRONG


def test_requests_of_a_worker_are_added_up_by_who_answered() -> None:
    name = "edgefolio_split_requests_total"
    text = (
        "# TYPE edgefolio_split_requests_total counter\n"
        f'{name}{{model="m",answerer="split",reason=""}} 7.0\n'
        f'{name}{{model="m",answerer="fallback",reason="lost"}} 2.0\n'
        f'{name}{{model="m",answerer="fallback",reason="forming"}} 3.0\n'
    )
    assert counted(text) == {"split": 7, "fallback": 5}


def test_a_line_that_is_half_written_is_no_request(tmp_path: Path) -> None:
    assert requests_in(tmp_path / "lines") == []
    (tmp_path / "lines").write_text("1.0 1.5 split-two\n2.0 2.")
    assert requests_in(tmp_path / "lines") == [Request(1.0, 1.5, "split-two")]


def test_pictures_are_the_digits_enlarged() -> None:
    pictures, classes = enlarged()
    assert pictures.shape == (1797, 8 * ENLARGED, 8 * ENLARGED)
    assert pictures.dtype == np.uint8
    assert len(classes) == 1797
    blocks = pictures.reshape(1797, 8, ENLARGED, 8, ENLARGED)
    assert (blocks == blocks[:, :, :1, :, :1]).all()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from served_splits import served_split
    from split_portfolios import SPLIT_TAG, publish_split

    folder = tmp_path_factory.mktemp("split") / "portfolios"
    publish_split(folder, served_split(tag=SPLIT_TAG))
    return folder


def command(repository: Path, output: Path, *options: str) -> list[str]:
    # Far above what a busy machine takes for the tiny net: no split answer is late for want of a processor.
    patient = ["--objective-milliseconds", "20000", "--seconds", "1"]
    arguments = ["--repository", str(repository), "--output", str(output), *patient, *options]
    return [sys.executable, "-m", "demo.split", *arguments]


def running(repository: Path) -> list[list[str]]:
    """Commands of processes that have to do with this portfolio."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(repository) in process.cmdline():
                found.append(process.cmdline())
    return found


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_of_it_on_loopback(repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(repository, tmp_path, "--loopback"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two servers on loopback" in done.stdout
    assert "Plan: by channels" in done.stdout
    document: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    before, killed, _, after = document["acts"]
    assert killed["act"]["disturbs"]
    assert killed["by_fallback"] > 0
    assert before["by_split"] > 0
    assert after["by_split"] > 0
    assert [each["passed"] for each in document["checks"]] == [True] * 4
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert running(repository) == []


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_runs_on_when_it_is_interrupted(repository: Path, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command(repository, tmp_path), cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 600
            while "one node killed" not in (tmp_path / "said").read_text():
                assert process.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert running(repository)
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=120)
        finally:
            process.kill()
            process.wait()
    text = (tmp_path / "said").read_text()
    assert code == 130, text
    assert "interrupted" in text
    assert running(repository) == []
    if "two network namespaces" in text:
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert "efx-" not in names
