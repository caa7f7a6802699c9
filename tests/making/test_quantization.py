"""``methods.quantization`` from the specification to the published portfolio, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgefolio.manifest import Manifest
from edgefolio.repository import Repository
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_pruner.stages.quantized_candidates import slower_twins

TWINS = ["dense-int8", "oneshot-40-int8", "sparse-1-int8"]


def quantized(folder: Path, **settings: object) -> Path:
    """The smallest portfolio in ``folder``, with quantization."""
    path = folder / "portfolio.yaml"
    document = yaml.safe_load(path.read_text())
    document["spec"]["methods"]["quantization"] = {
        "precision": "Int8",
        "calibrationSamples": 64,
        "maxAccuracyLossPoints": "100",
        **settings,
    }
    # A twin of the same accuracy is a choice of its own.
    document["spec"]["selection"] = {"latencyEpsilonPercent": "0", "accuracyEpsilonPoints": "0", "maxVariants": 16}
    path.write_text(yaml.safe_dump(document))
    return path


def make(edgefolio: Any, folder: Path, **options: Any) -> Any:
    return edgefolio("make", "-f", "portfolio.yaml", "--work-dir", "work", "--json", cwd=folder, **options)


def manifest_of(folder: Path) -> Manifest:
    return Repository.open(str(folder / "portfolios")).current_manifest("digits")[1]


def twins_of(work: Path) -> dict[str, dict[str, Any]]:
    """What was kept of each twin."""
    return {
        path.name.removeprefix("twin-").rpartition("-")[0]: json.loads(path.read_text())["value"]
        for path in work.glob("twin-*.json")
    }


def begun(made: Any, folder: Path) -> Path:
    """A copy of the portfolio that was made without quantization: training is done."""
    folder.mkdir()
    shutil.copy(made.folder / "portfolio.yaml", folder)
    shutil.copytree(made.work, folder / "work")
    return folder


@pytest.fixture(scope="module")
def with_twins(edgefolio, made, tmp_path_factory) -> Path:
    folder = begun(made, tmp_path_factory.mktemp("quantized") / "made")
    quantized(folder)
    finished = make(edgefolio, folder)
    assert finished.code == 0, finished.stderr
    return folder


def test_every_candidate_has_a_twin_and_each_is_published_or_left_out_with_its_reason(with_twins):
    manifest = manifest_of(with_twins)
    left_out = {rejected.name: rejected.reason for rejected in manifest.rejected}
    published = {variant.name: variant for variant in manifest.variants}
    assert sorted(name for name in {**left_out, **published} if name.endswith("-int8")) == TWINS
    for name, kept in twins_of(with_twins / "work").items():
        assert kept["parity"]["samples"] >= 256
        assert kept["parity"]["top1AgreementPercent"] > 90
        assert kept["quantization"]["calibrationSamples"] == 64
        if name in published:
            variant = published[name]
            assert (variant.precision, variant.parent) == ("Int8", name.removesuffix("-int8"))
            assert variant.quantization is not None
            assert variant.quantization.float_parent == variant.parent
            assert variant.quantization.int8_layers > 0
        else:
            assert "float parent" in left_out[name] or "as good or better" in left_out[name]
    assert all(variant.precision == "Float32" for name, variant in published.items() if name not in TWINS)


def test_the_repository_is_sound(with_twins):
    verification = verify_repository(Repository.open(str(with_twins / "portfolios")))
    assert verification.is_sound, verification.all_findings


def test_float_candidates_are_those_of_the_run_without_it(with_twins, made):
    def digests(work: Path) -> dict[str, str]:
        values = [json.loads(path.read_text())["value"] for path in work.glob("candidate-*.json")]
        return {value["name"]: value["sha256"] for value in values}

    assert digests(with_twins / "work") == digests(made.work)


def test_killed_while_it_quantizes_it_resumes_to_the_same_files(edgefolio, made, with_twins, tmp_path):
    folder = begun(made, tmp_path / "killed")
    quantized(folder)
    wanted = {name: kept["sha256"] for name, kept in twins_of(with_twins / "work").items()}
    for tenths in range(3, 60, 6):
        finished = make(edgefolio, folder, kill_after=tenths / 10)
        if finished.code == 0:
            break
        assert finished.code == -9, finished.stderr
        # What is kept is whole, and nothing of a revision is to be seen before its pointer.
        assert {name: kept["sha256"] for name, kept in twins_of(folder / "work").items()}.items() <= wanted.items()
    finished = make(edgefolio, folder)
    assert finished.code == 0, finished.stderr
    assert {name: kept["sha256"] for name, kept in twins_of(folder / "work").items()} == wanted


def test_made_again_nothing_is_quantized(edgefolio, with_twins):
    times = {path: path.stat().st_mtime_ns for path in (with_twins / "work").glob("twin-*/*")}
    again = make(edgefolio, with_twins)
    assert again.code == 0, again.stderr
    assert again.document["alreadyPublished"]
    assert times == {path: path.stat().st_mtime_ns for path in times}


def constant(array: np.ndarray) -> np.ndarray:
    return np.ones_like(array)


def few(array: np.ndarray) -> np.ndarray:
    return array[:36]


@pytest.mark.parametrize(
    ("change", "problem", "field"),
    [
        (constant, "samples are equal", "spec.data.trainingURI"),
        (few, "samples", "spec.methods.quantization.calibrationSamples"),
    ],
)
def test_data_that_calibrates_nothing_is_one_error_before_any_work(
    edgefolio, portfolio_file, tmp_path, change: Callable[[np.ndarray], np.ndarray], problem: str, field: str
):
    images = np.random.default_rng(0).random((400, 1, 8, 8)).astype(np.float32)
    labels = np.arange(400, dtype=np.int64) % 4
    np.savez(tmp_path / "data.npz", x=change(images), y=labels[: len(change(images))])

    def ask(document: dict[str, Any]) -> None:
        document["spec"]["data"]["trainingURI"] = str(tmp_path / "data.npz")
        document["spec"]["methods"]["quantization"] = {"precision": "Int8"}

    finished = edgefolio("make", "-f", portfolio_file(ask), "--work-dir", "work", "--repository", "out", cwd=tmp_path)
    assert finished.code == 2
    assert problem in finished.stderr
    assert field in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not list((tmp_path / "out").glob("revisions/*/*"))
    assert not list((tmp_path / "work").glob("train-*"))


def test_a_twin_that_is_no_faster_than_its_parent_is_left_out(with_twins):
    manifest = manifest_of(with_twins)
    profile = manifest.variants[0].profiles[0]
    kept = twins_of(with_twins / "work")["dense-int8"]

    from edgefolio_pruner.stages.candidates import CandidateRecord

    twin = CandidateRecord.model_validate(kept)

    def taking(factor: float) -> Any:
        latencies = [
            entry.model_copy(update={"p50_milliseconds": entry.p50_milliseconds * factor})
            for entry in profile.latencies
        ]
        return profile.model_copy(update={"latencies": tuple(latencies)})

    for factor, slower in ((0.5, set()), (1.0, {"dense-int8"}), (2.0, {"dense-int8"})):
        found = slower_twins([twin], {"dense": taking(1.0), "dense-int8": taking(factor)}, batch=8)
        assert set(found) == slower
        assert all("no faster on this processor than dense" in reason for reason in found.values())
