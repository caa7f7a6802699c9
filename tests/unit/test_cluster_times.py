"""The page of the times of a cluster: medians, ranges, and what did not converge."""

from __future__ import annotations

from benchmarks.cluster.table import markdown


def page(**seconds: list[float | None]) -> str:
    machine = {"processor": "a processor", "logicalCpus": 2, "kubernetes": "1.36.3"}
    head = {"command": "python -m benchmarks.cluster", "commit": "abc", "machine": machine, "downAfterSeconds": 5}
    return markdown({**head, "seconds": seconds})


def test_each_time_is_a_row() -> None:
    rows = page(install=[9.25], fault=[3.0, 1.0, 8.0]).splitlines()[-2:]
    assert rows == ["| install | 9.2 |", "| fault | 3.0 (1.0 to 8.0) |"]


def test_what_did_not_converge_is_said() -> None:
    rows = page(one=[None], two=[2.0, None, 4.0]).splitlines()[-2:]
    assert rows[0] == "| one | 1 of 1 did not converge |"
    assert rows[1] == "| two | 3.0 (2.0 to 4.0); 1 of 3 did not converge |"


def test_the_page_says_where_and_by_which_command() -> None:
    text = page(install=[1.0])
    assert "`python -m benchmarks.cluster` at abc: a processor, 2 processors, Kubernetes 1.36.3." in text
    assert "`downAfterSeconds` is 5" in text
