"""Pruning runs of every task, from data and weights of one's own to a published manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from task_nets import portfolio, prepared

from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio.repository import Repository
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_pruner.html_report import write_report
from edgefolio_pruner.pipeline import MakeResult, make_portfolio


def made(task: str, folder: Path, **changes: Any) -> MakeResult:
    return make_portfolio(portfolio(task, folder, **changes), work_directory=folder / "work", threads=1)


def manifest_of(folder: Path) -> Manifest:
    return Repository.open(str(folder / "portfolios"), field="f").current_manifest("own")[1]


@pytest.fixture(scope="module")
def prepared_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folders: dict[str, Path] = {}

    def get(task: str) -> Path:
        if task not in folders:
            folders[task] = tmp_path_factory.mktemp(task)
            prepared(task, folders[task])
        return folders[task]

    return get


def test_regression_is_scored_in_percent_of_the_dense_model(prepared_of: Any) -> None:
    folder = prepared_of("Regression")
    result = made(
        "Regression", folder, methods={"oneShot": {"macsPercent": [60]}, "quantization": {"precision": "Int8"}}
    )
    manifest = manifest_of(folder)
    assert manifest.score is not None
    assert (manifest.score.task, manifest.score.metric) == ("Regression", "mean absolute error")
    assert (manifest.score.better, manifest.score.unit) == ("Lower", "PercentOfDense")
    assert manifest.labels == ()
    assert manifest.class_samples is None
    assert manifest.signature.inputs[0].shape == (12,)
    assert manifest.signature.outputs[0].shape == (3,)
    variants = {variant.name: variant for variant in manifest.variants}
    dense = variants["dense"]
    assert dense.test_accuracy.percent == 100.0
    data = np.load(folder / "data.npz")
    # The figure is that of the file on the test samples, and the smaller variant's is in percent of it.
    for variant in manifest.variants:
        assert variant.test_score is not None
        assert variant.test_classes is None
        assert 0 < variant.test_score.low <= variant.test_score.value <= variant.test_score.high < 2
        expected = min(100.0, 100 * dense.test_score.value / variant.test_score.value)  # type: ignore[union-attr]
        assert variant.test_accuracy.percent == pytest.approx(expected)
    assert dense.test_score is not None
    assert dense.test_score.value < np.abs(data["y"] - data["y"].mean(axis=0)).mean() / 2
    assert verify_repository(Repository.open(str(folder / "portfolios"), field="f")).is_sound
    assert any("the given weights: mean absolute error" in note for note in manifest.notes)
    report = write_report(manifest, folder / "report.html").read_text()
    assert "mean absolute error" in report
    assert "MAE" in report
    again = made(
        "Regression", folder, methods={"oneShot": {"macsPercent": [60]}, "quantization": {"precision": "Int8"}}
    )
    assert again.published.already_published
    assert result.manifest == again.manifest


def test_labels_of_a_signal(prepared_of: Any) -> None:
    folder = prepared_of("MultiLabel")
    made("MultiLabel", folder, classNames=["low", "middle", "high", "shrill"])
    manifest = manifest_of(folder)
    assert manifest.score is not None
    assert (manifest.score.word, manifest.score.unit) == ("F1", "Percent")
    assert manifest.labels == ("low", "middle", "high", "shrill")
    # [N, 64] in the file; the network takes one channel.
    assert manifest.signature.inputs[0].shape == (1, 64)
    assert max(variant.test_accuracy.percent for variant in manifest.variants) > 80


def test_masks_of_pixels(prepared_of: Any) -> None:
    folder = prepared_of("Segmentation")
    made("Segmentation", folder)
    manifest = manifest_of(folder)
    assert manifest.score is not None
    assert manifest.score.word == "mIoU"
    assert manifest.labels == ("0", "1", "2")
    assert manifest.signature.outputs[0].shape == (3, 16, 16)
    assert max(variant.test_accuracy.percent for variant in manifest.variants) > 60
    assert all(variant.parity.top1_agreement_percent > 99 for variant in manifest.variants)


def test_several_outputs_keep_their_names_and_the_first_is_scored(prepared_of: Any) -> None:
    folder = prepared_of("Classification")
    made("Classification", folder)
    manifest = manifest_of(folder)
    # Top-1 accuracy as ever: nothing says otherwise.
    assert manifest.score is None
    assert "score" not in manifest.to_bytes().decode()
    assert [(tensor.name, tensor.shape) for tensor in manifest.signature.outputs] == [
        ("logits", (4,)),
        ("features", (24,)),
    ]
    variant = manifest.variants[0]
    assert [tensor.name for tensor in variant.probe.outputs] == ["logits", "features"]
    (file,) = (folder / "portfolios").rglob(variant.file)
    names = [output.name for output in onnxruntime.InferenceSession(file).get_outputs()]
    assert names == ["logits", "features"]


@pytest.mark.parametrize("labelled", [True, False])
def test_agreement_needs_no_labels(prepared_of: Any, tmp_path: Path, labelled: bool) -> None:
    folder = prepared_of("Classification")
    arrays = dict(np.load(folder / "data.npz"))
    if not labelled:
        del arrays["y"]
    np.savez(tmp_path / "data.npz", **arrays)
    uri = str(tmp_path / "data.npz")
    result = make_portfolio(
        portfolio("Classification", folder, trainingURI=uri, metric={"name": "Agreement"}),
        repository_uri=str(tmp_path / "portfolios"),
        work_directory=tmp_path / "work",
        threads=1,
    )
    manifest = result.manifest
    assert manifest.score is not None
    assert manifest.score.word == "agreement"
    # The dense model agrees with itself, and what agrees as much is published in its place.
    assert manifest.variants[-1].test_accuracy.percent == 100
    assert (manifest.variants[-1].test_classes is None) == (not labelled)
    assert (manifest.class_samples is None) == (not labelled)


def worst_error(outputs: Any, targets: Any) -> float:
    return float((outputs - targets).abs().max())


def test_a_metric_of_ones_own(prepared_of: Any, tmp_path: Path) -> None:
    folder = prepared_of("Regression")
    (tmp_path / "own_metric_of_a_test.py").write_text(
        "def worst(outputs, targets):\n    return (outputs - targets).abs().max()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = make_portfolio(
            portfolio(
                "Regression",
                folder,
                data={"task": "Custom"},
                metric={"factory": "own_metric_of_a_test:worst", "direction": "Lower"},
            ),
            repository_uri=str(tmp_path / "portfolios"),
            work_directory=tmp_path / "work",
            threads=1,
        )
    manifest = result.manifest
    assert manifest.score is not None
    assert manifest.score.metric == "own_metric_of_a_test:worst"
    assert all(variant.test_score is not None for variant in manifest.variants)


def test_weights_that_know_nothing_are_refused(prepared_of: Any, tmp_path: Path) -> None:
    for task in ("Regression", "MultiLabel", "Segmentation"):
        folder = prepared_of(task)
        arrays = dict(np.load(folder / "data.npz"))
        name = {"Regression": "y", "MultiLabel": "labels", "Segmentation": "masks"}[task]
        arrays[name] = arrays[name][np.random.default_rng(0).permutation(len(arrays[name]))]
        np.savez(tmp_path / f"{task}.npz", **arrays)
        with pytest.raises(UserError, match=r"no better than chance|worse than always") as caught:
            make_portfolio(
                portfolio(task, folder, trainingURI=str(tmp_path / f"{task}.npz")),
                repository_uri=str(tmp_path / "portfolios"),
                work_directory=tmp_path / task,
                threads=1,
            )
        assert caught.value.field == "spec.source.weightsURI"


def test_another_normalization_is_found_for_every_task(prepared_of: Any, tmp_path: Path) -> None:
    for task in ("Regression", "MultiLabel", "Segmentation"):
        folder = prepared_of(task)
        wrong = {"mean": ["-4"], "standardDeviation": ["20"]}
        with pytest.raises(UserError, match="trained on other values") as caught:
            make_portfolio(
                portfolio(task, folder, normalization=wrong),
                repository_uri=str(tmp_path / "portfolios"),
                work_directory=tmp_path / task,
                threads=1,
            )
        assert caught.value.field == "spec.data.normalization"
        assert caught.value.remedy.startswith("Set data.normalization")


def test_a_network_of_two_inputs_is_refused_with_what_to_do(prepared_of: Any, tmp_path: Path) -> None:
    folder = prepared_of("Classification")
    spec = portfolio("Classification", folder).model_dump(mode="json", by_alias=True, exclude_none=True)
    spec["spec"]["source"]["architecture"]["name"] = "task_nets:TwoInputs"
    del spec["spec"]["source"]["weightsURI"]
    spec["spec"]["methods"]["sparseTraining"] = {}
    with pytest.raises(UserError, match=r"takes 2 inputs \(image, numbers\)") as caught:
        make_portfolio(
            type(portfolio("Classification", folder)).model_validate(spec), work_directory=tmp_path, threads=1
        )
    assert caught.value.field == "spec.source.architecture"
    assert "data.inputs: [image, numbers]" in caught.value.remedy
