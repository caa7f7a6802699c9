"""What a log tells of a pruning run, whatever else stands in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.contract.job_report import ProgressLine
from edgefolio_operator.cluster_state.job_progress import newest_running

LINE = '{"stage":"training","percent":40,"message":"dense: epoch 1/3, loss 0.5"}'


@pytest.mark.parametrize(
    ("log", "stage"),
    [
        (LINE, "training"),
        (f"warming up\n{LINE}\nTraceback (most recent call last):\n  File", "training"),
        (f'{LINE}\n{{"stage":"profile","percent":1}}', "profile"),
        (
            f'{LINE}\n{{"stage":"profile","percent":101}}\n{{"stage":"","percent":1}}\n{{"stage":7}}\n[]\nnull',
            "training",
        ),
        (f'{LINE}\n{{"stage":"{"x" * 64}","percent":1}}', "training"),
        ("", None),
        ('{"stage":"half', None),
    ],
)
def test_the_newest_line_that_is_one_counts(log: str, stage: str | None) -> None:
    line = ProgressLine.newest_in(log)
    assert (line.stage if line else None) == stage


@given(st.text())
def test_any_log_can_be_read(log: str) -> None:
    assert ProgressLine.newest_in(log) is None or log


@given(st.text(max_size=20).filter(bool), st.integers(0, 100), st.text())
def test_what_is_logged_is_read(stage: str, percent: int, message: str) -> None:
    line = ProgressLine(stage=stage, percent=percent, message=message)
    assert ProgressLine.newest_in(line.to_message()) == line


def pod(name: str, created: str, *, job: str = "a", phase: str = "Running", leaving: bool = False) -> dict[str, Any]:
    owner = {"kind": "Job", "name": job, "uid": job, "controller": True}
    metadata = {"name": name, "namespace": "models", "creationTimestamp": created, "ownerReferences": [owner]}
    return {
        "metadata": {**metadata, **({"deletionTimestamp": "x"} if leaving else {})},
        "status": {"phase": phase},
    }


def test_the_newest_running_pod_of_each_job_is_read() -> None:
    pods = [
        pod("a-2", "2026-01-02T00:00:00Z"),
        pod("a-1", "2026-01-01T00:00:00Z"),
        pod("a-3", "2026-01-03T00:00:00Z", phase="Pending"),
        pod("a-4", "2026-01-04T00:00:00Z", leaving=True),
        pod("b-1", "2026-01-01T00:00:00Z", job="b"),
        pod("c-1", "2026-01-01T00:00:00Z", job="c", phase="Succeeded"),
        {"metadata": {"name": "x", "namespace": "models", "labels": {"job-name": "a"}}, "status": {"phase": "Running"}},
    ]
    found = {job: entry["metadata"]["name"] for (_, job), entry in newest_running(pods).items()}
    assert found == {"a": "a-2", "b": "b-1"}
