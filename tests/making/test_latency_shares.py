"""``latencyPercent`` as a piece of a pruning run: the table of times is measured once and kept."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import safetensors.torch
import torch

from edgefolio.specification.loading import load_portfolio
from edgefolio_pruner.architectures import cnn
from edgefolio_pruner.inputs import load_source
from edgefolio_pruner.methods import CandidateWeights, Workbench, asked_for, make_piece, one_shot
from edgefolio_pruner.progress import no_progress
from edgefolio_pruner.work.directory import WorkDirectory


def by_time(document, folder: Path, percents: list[int], *, width: int = 16) -> None:
    torch.manual_seed(0)
    document["spec"]["source"]["architecture"]["options"]["width"] = width
    safetensors.torch.save_file(cnn(in_channels=1, width=width).state_dict(), folder / "weights.safetensors")
    document["spec"]["source"]["weightsURI"] = str(folder / "weights.safetensors")
    document["spec"]["methods"] = {"oneShot": {"macsPercent": [], "latencyPercent": percents}}


def run(portfolio, work: Path, said: list[str], piece: str = "oneshot-latency") -> tuple[CandidateWeights, ...]:
    def progress(*, stage: str, fraction: float, message: str) -> None:
        said.append(message)

    bench = Workbench(
        source=load_source(portfolio, progress=no_progress), work=WorkDirectory(work), threads=1, progress=progress
    )
    return make_piece(asked_for(portfolio), piece, bench)


def digests(work: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in work.rglob("*.safetensors")}


def test_a_run_that_goes_on_uses_the_kept_table_and_gives_the_same_bytes(portfolio_file, tmp_path, monkeypatch):
    portfolio = load_portfolio(portfolio_file(lambda document: by_time(document, tmp_path, [60, 5])))
    said: list[str] = []
    measured: list[object] = []
    measure = one_shot.measure_layer_times

    def counted(shapes, **arguments):
        measured.append(shapes)
        return measure(shapes, **arguments)

    monkeypatch.setattr(one_shot, "measure_layer_times", counted)
    first = run(portfolio, tmp_path / "work", said)
    before = digests(tmp_path / "work")
    settings = {made.name: copy.deepcopy(dict(made.settings)) for made in first}
    assert "oneshot-latency-60" in settings
    asked, reached = (settings["oneshot-latency-60"][name] for name in ("latencyPercent", "latencyPercentReached"))
    assert asked == 60
    # It may be that the machine is no faster at any width that is left: then the nearest is told.
    assert reached <= 60 or any("60 % of the milliseconds" in message for message in said)
    # A variant is lost; the table is not.
    next((tmp_path / "work").rglob("oneshot-latency-60.safetensors")).unlink()
    again = run(portfolio, tmp_path / "work", said)
    assert len(measured) == 1
    assert digests(tmp_path / "work") == before
    assert {made.name: made.digest for made in again} == {made.name: made.digest for made in first}


def test_a_share_that_saves_no_time_is_told_and_gives_no_candidate(portfolio_file, tmp_path, monkeypatch):
    portfolio = load_portfolio(portfolio_file(lambda document: by_time(document, tmp_path, [90])))

    def flat(shapes, **_):
        measure = one_shot.LayerTimes
        return {
            shape.name: measure(
                rows=tuple((width, 1.0) for width in shape.rows), columns=tuple((width, 1.0) for width in shape.columns)
            )
            for shape in shapes
        }

    monkeypatch.setattr(one_shot, "measure_layer_times", flat)
    for _ in range(2):
        said: list[str] = []
        assert run(portfolio, tmp_path / "work", said) == ()
        assert any("latencyPercent 90 gives no variant" in message for message in said)


def test_a_share_asked_for_twice_is_one_candidate(portfolio_file, tmp_path):
    portfolio = load_portfolio(portfolio_file(lambda document: by_time(document, tmp_path, [60, 60])))
    assert len(run(portfolio, tmp_path / "work", [])) == 1


def test_more_left_than_asked_for_is_a_line_of_progress_and_a_note(portfolio_file, tmp_path):
    def change(document) -> None:
        by_time(document, tmp_path, [60], width=8)
        document["spec"]["methods"] = {"oneShot": {"macsPercent": [5]}}

    portfolio = load_portfolio(portfolio_file(change))
    for _ in range(2):
        said: list[str] = []
        (made,) = run(portfolio, tmp_path / "work", said, piece="oneshot-5")
        assert made.settings["macsPercentReached"] > 5
        (note,) = (note for note in made.settings["notes"] if "5 % of the multiply-accumulates were asked for" in note)
        assert f"oneshot-5: {note}" in said
