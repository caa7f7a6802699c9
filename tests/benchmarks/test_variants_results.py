"""The benchmark's figures: from rows to a page, the results file, and stages that are not run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.variants.nets import NETS
from benchmarks.variants.store import Store, digest_of_code
from benchmarks.variants.tables.goals import GOALS, Goal
from benchmarks.variants.tables.page import AIMED, FEW, MET, MISSED, UNMEASURED, markdown, verdict
from benchmarks.variants.tables.results import Results
from benchmarks.variants.tables.rows import Cell, Row, cell, ratio

COMMON: dict[str, Any] = {
    "command": "python -m benchmarks.variants",
    "machine": {"cpuModel": "a processor", "logicalCpus": 2, "instructionSets": ["avx2"]},
    "versions": {"torch": "2"},
    "trainingSamples": 6000,
    "calibrationSamples": 512,
    "stopping": {"leastGainPoints": 0.1, "patienceEpochs": 3, "rates": 3},
}
LOSS = Goal(
    claim="half", measure="loss", title="loss", unit="points", lower=True, must={"vgg11": 0.5}, aim={"vgg11": 0.2}
)
SPEED = Goal(claim="int8", measure="speed", title="speed", unit="x", lower=False, must={"vgg11": 1.8})


def row(value: float, seed: int = 0, **fields: Any) -> Row:
    """A row of the first claim on VGG-11."""
    return Row(**{"claim": "half", "measure": "loss", "net": "vgg11", "seed": seed, "value": value, **fields})


def test_a_cell_is_the_mean_of_its_seeds_with_students_interval() -> None:
    found = cell(
        [row(0.3, 2), row(0.1, 0), row(0.2, 1), row(9, net="resnet8"), row(9, measure="loss-25")], LOSS, "vgg11"
    )
    assert found is not None
    assert found.seeds == (0, 1, 2)
    assert found.mean == pytest.approx(0.2)
    # 4.3027 is the quantile of two degrees of freedom.
    assert found.half_width == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert cell([], LOSS, "vgg11") is None


@pytest.mark.parametrize(
    ("goal", "values", "words"),
    [
        (LOSS, (0.1, 0.1, 0.1), AIMED),
        (LOSS, (0.4, 0.4, 0.4), MET),
        (LOSS, (0.6, 0.6, 0.6), MISSED),
        (LOSS, (0.1, 0.1), FEW),
        (LOSS, (0.6,), MISSED),
        (LOSS, (), UNMEASURED),
        (SPEED, (2.0, 2.0, 2.0), MET),
        (SPEED, (1.7, 1.7, 1.7), MISSED),
    ],
)
def test_a_verdict_needs_three_seeds_and_knows_which_way_is_better(
    goal: Goal, values: tuple[float, ...], words: str
) -> None:
    found = Cell(values=values, seeds=tuple(range(len(values)))) if values else None
    assert verdict(goal, "vgg11", found) == words


def test_ratios_are_taken_within_rounds() -> None:
    # The machine is twice as slow in every second round; the ratio is 4 in all of them.
    value, spread = ratio([4.0, 8.0] * 10, [1.0, 2.0] * 10)
    assert (value, spread) == (4, (4, 4))
    value, spread = ratio([float(step) for step in range(1, 12)], [1.0] * 11)
    assert (value, spread) == (6, (2, 10))


def test_the_page_names_every_goal_and_what_is_not_reached() -> None:
    rows = [row(1.5, seed).document() for seed in (0, 1, 2)]
    networks = {
        "vgg11": {
            "title": "VGG",
            "0": {"epochs": 9, "bestEpoch": 8, "processorSeconds": 70, "validationPercent": 90.0, "testPercent": 89.5},
        }
    }
    page = markdown({**COMMON, "networks": networks, "rows": rows})
    lines = page.splitlines()
    assert sum(line.startswith("| One-shot, half of the MACs") for line in lines) == 4
    missed = [line for line in lines if MISSED in line]
    assert len(missed) == 1
    assert NETS["vgg11"].title in missed[0]
    assert "1.50 ± 0.00" in missed[0]
    assert page.count(UNMEASURED) == sum(len(goal.must) for goal in GOALS) - 1
    assert "| VGG-11 width 32 | 0 | 9 | 8 | 70 | 90.00 | 89.50 |" in lines


def test_rows_survive_the_file_and_replace_their_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "variants.json"
    results = Results(path, COMMON)
    timed = row(2.0, claim="int8", measure="speed", spread=(1.5, 2.5), detail={"dense": 90.0})
    results.replace("half", "vgg11", 0, [row(0.3), row(0.9, measure="loss-25")])
    results.replace("int8", "vgg11", 0, [timed])
    results.replace("half", "vgg11", 1, [row(0.4, 1)])
    again = Results(path, COMMON)
    assert set(map(repr, again.rows)) == {
        repr(one) for one in (row(0.3), row(0.9, measure="loss-25"), row(0.4, 1), timed)
    }
    again.replace("half", "vgg11", 0, [row(0.2)])
    assert [one.value for one in Results(path, COMMON).rows if one.claim == "half"] == [0.2, 0.4]


def test_rows_of_another_machine_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "variants.json"
    Results(path, COMMON).replace("half", "vgg11", 0, [row(0.3)])
    other = COMMON | {"machine": COMMON["machine"] | {"cpuModel": "another"}}
    assert Results(path, other).rows == ()
    assert len(Results(path, COMMON).rows) == 1


def test_a_stage_runs_again_only_if_what_it_depends_on_has_changed(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"calls": len(calls)}

    def store(key: str) -> Store:
        return Store(folder=tmp_path, key={"trained": key}, say=lambda _: None, label="net")

    assert store("a").stage("one", work, code=(), percents=[50]) == {"calls": 1}
    assert store("a").stage("one", work, code=(), percents=[50]) == {"calls": 1}
    assert store("a").stage("one", work, code=(), percents=[25]) == {"calls": 2}
    assert store("b").stage("one", work, code=(), percents=[25]) == {"calls": 3}
    (tmp_path / "one.json").write_text(json.dumps({"key": {}})[:-3])
    assert store("b").stage("one", work, code=(), percents=[25]) == {"calls": 4}


def test_the_digest_of_code_follows_contents_and_names(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    file = tmp_path / "room" / "a.py"
    file.write_text("x = 1\n")
    first = digest_of_code(["room"], tmp_path)
    (tmp_path / "room" / "notes.txt").write_text("not code")
    assert digest_of_code(["room"], tmp_path) == first
    file.write_text("x = 2\n")
    second = digest_of_code(["room"], tmp_path)
    file.rename(tmp_path / "room" / "b.py")
    assert len({first, second, digest_of_code(["room"], tmp_path)}) == 3
    assert digest_of_code(["room/b.py"], tmp_path) == digest_of_code(["room"], tmp_path)
