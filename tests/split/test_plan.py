"""A plan that does not fit together is refused by its reader, and files that are not the plan's by the executor."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from draft_splits import document, two_workers

from edgefolio.errors import IntegrityError
from edgefolio.records.split_plan import SplitPlan, parse_plan
from edgefolio_split.executor import SplitExecutor


def parsed(changed: dict[str, Any]) -> SplitPlan:
    return parse_plan(json.dumps(changed).encode(), location="plan.json")


def test_a_plan_is_read_as_it_was_written_and_bytes_are_counted() -> None:
    files = two_workers()
    plan = parsed(document(files))
    assert parse_plan(plan.to_bytes(), location="plan.json") == plan
    answer = SplitExecutor(plan, files.__getitem__).run(np.array([[1, 2, 3, 4]], dtype=np.float32))
    assert answer.outputs[0].tolist() == [[-1]]
    assert answer.bytes_in == {"x0": (4, 4)}
    assert [plan.bytes_into(rank) for rank in range(2)] == [4, 4]
    assert plan.synchronisations == 1


def exchange_of(plan: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plan["exchanges"][0]
    return found


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown field": (lambda plan: plan.update(more=1), "more"),
    "owner missing": (lambda plan: exchange_of(plan).update(owners=[0, 0]), "slot 2 of 2"),
    "sent by another than the owner": (lambda plan: exchange_of(plan)["owners"].__setitem__(0, 1), "belongs to 1"),
    "sent to itself": (lambda plan: exchange_of(plan)["transfers"][0].update(receiver=0), "sends to itself"),
    "sent twice": (
        lambda plan: exchange_of(plan)["transfers"].append(exchange_of(plan)["transfers"][0]),
        "two transfers between the same workers",
    ),
    "a slot twice": (lambda plan: exchange_of(plan)["transfers"][0].update(slots=[0, 0]), "ascending order"),
    "a slot that is not there": (lambda plan: exchange_of(plan)["transfers"][0].update(slots=[9]), "slot 9"),
    "an owner that is not there": (lambda plan: exchange_of(plan)["owners"].__setitem__(3, 4), "worker 4 of 2"),
    "a path out of the folder": (
        lambda plan: plan["shards"][0]["segments"][0].update(file="../shard-0/segment-0.onnx"),
        "file",
    ),
    "another worker's file": (
        lambda plan: plan["shards"][0]["segments"][0].update(file="shard-1/segment-0.onnx"),
        "its files are not",
    ),
    "a worker without a shard": (lambda plan: plan["shards"].pop(), "shards are not those"),
    "shares that do not sum to 100": (lambda plan: plan.update(sharesPercent=[50, 49]), "sum to 100"),
    "too many workers": (lambda plan: plan.update(workers=9), "workers"),
    "another schema": (lambda plan: plan.update(schemaVersion="edgefolio.dev/split-plan/v2"), "schemaVersion"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_plan_that_does_not_fit_together_is_refused(name: str) -> None:
    change, message = FAULTS[name]
    plan = document(two_workers())
    change(plan)
    with pytest.raises(IntegrityError, match=message):
        parsed(plan)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"workers": NaN}'])
def test_what_is_no_plan_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_plan(raw, location="plan.json")


def test_files_that_are_not_the_plans_are_refused_by_name() -> None:
    files = two_workers()
    plan = parsed(document(files))
    name = "shard-1/segment-1.onnx"
    for broken in (files[name][:-1], files["shard-0/segment-1.onnx"], b""):
        with pytest.raises(IntegrityError) as error:
            SplitExecutor(plan, {**files, name: broken}.__getitem__)
        assert error.value.location == name


def test_segments_that_do_not_give_what_the_plan_sends_are_refused() -> None:
    files = two_workers()
    changed = document(files)
    changed["exchanges"][0]["transfers"][0]["sent"] = "x9_to_1"
    with pytest.raises(IntegrityError, match="no segment of worker 0 gives x9_to_1"):
        SplitExecutor(parsed(changed), files.__getitem__)
    changed = document(files)
    changed["exchanges"][0]["transfers"].pop()
    with pytest.raises(IntegrityError, match="reads x0_from_1, which nothing before it gives"):
        SplitExecutor(parsed(changed), files.__getitem__)


def test_a_tensor_of_another_size_than_planned_is_refused_when_it_moves() -> None:
    files = two_workers()
    changed = document(files)
    changed["exchanges"][0]["elements"] = 2
    with pytest.raises(IntegrityError, match="has 4 bytes, the plan says 8"):
        SplitExecutor(parsed(changed), files.__getitem__).run(np.zeros((1, 4), dtype=np.float32))
