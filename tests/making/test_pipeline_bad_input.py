"""Bad input through the command line: exit code 2, one clear error with field and remedy, and nothing written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from edgefolio.repository import Repository
from edgefolio_edge.models.repository_audit import verify_repository
from edgefolio_pruner.architectures import cnn

Change = Callable[[dict[str, Any], Path], object]


def architecture(**changes: object) -> Change:
    return lambda spec, folder: spec["source"]["architecture"].update(changes)


def data(**changes: object) -> Change:
    return lambda spec, folder: spec["data"].update(changes)


def weights(write: Callable[[Path], object]) -> Change:
    def change(spec: dict[str, Any], folder: Path) -> None:
        path = folder / "input" / "weights.safetensors"
        write(path)
        spec["source"]["weightsURI"] = str(path)

    return change


def arrays(**changes: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(spec: dict[str, Any], folder: Path) -> None:
        generator = np.random.default_rng(0)
        content = {
            "x": generator.random((200, 1, 8, 8)).astype(np.float32),
            "y": np.arange(200, dtype=np.int64) % 10,
        }
        for name, function in changes.items():
            content[name] = function(content[name])
        path = folder / "input" / "data.npz"
        np.savez(path, **content)
        spec["data"].update(trainingURI=str(path))

    return change


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[7] = np.nan
    return array


def state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return cnn(in_channels=1, width=16).state_dict() | changes


def save(tensors: dict[str, torch.Tensor]) -> Callable[[Path], object]:
    return lambda path: safetensors.torch.save_file(tensors, path)


def without_channels(spec: dict[str, Any], folder: Path) -> None:
    (folder / "flat_network.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    spec["source"]["architecture"] = {"library": "factory", "name": "flat_network:build"}


# What is wrong: the change of the spec, the field that the error names, a word of the problem.
CASES: dict[str, tuple[Change, str, str]] = {
    "unknown architecture": (architecture(name="resnet9"), "spec.source.architecture.name", "no such architecture"),
    "unknown timm architecture": (architecture(library="timm"), "spec.source.architecture.name", "no such"),
    "unknown option": (architecture(options={"depth": 3}), "spec.source.architecture.options", "depth"),
    "unknown data set": (data(trainingURI="builtin:mnist"), "spec.data.trainingURI", "no such built-in"),
    "unknown data scheme": (data(trainingURI="nosuch://x/y.npz"), "spec.data.trainingURI", "scheme"),
    "missing data": (data(trainingURI="/nowhere/data.npz"), "spec.data.trainingURI", "no such file"),
    "unknown repository scheme": (
        lambda spec, folder: spec["repository"].update(uri="nosuch://bucket"),
        "spec.repository.uri",
        "scheme",
    ),
    "unwritable repository": (
        lambda spec, folder: spec["repository"].update(uri="./portfolio.yaml/portfolios"),
        "spec.repository.uri",
        "cannot be written",
    ),
    "missing weights": (
        weights(save({"0.weight": state()["0.weight"]})),
        "spec.source.weightsURI",
        "missing",
    ),
    "weights of another shape": (
        weights(save(state(**{"0.weight": torch.zeros(4, 1, 3, 3)}))),
        "spec.source.weightsURI",
        "0.weight: 4x1x3x3 given, 16x1x3x3 wanted",
    ),
    "NaN in the weights": (
        weights(save(state(**{"0.weight": torch.full((16, 1, 3, 3), float("nan"))}))),
        "spec.source.weightsURI",
        "not finite",
    ),
    "a pickle": (
        weights(lambda path: path.write_bytes(pickle.dumps({"a": 1}))),
        "spec.source.weightsURI",
        "pickle",
    ),
    "a torch archive": (weights(lambda path: torch.save(state(), path)), "spec.source.weightsURI", "pickle"),
    "another input shape": (architecture(options={"in_channels": 3}), "spec.source.architecture", "1x8x8"),
    "labels outside the classes": (
        architecture(options={"in_channels": 1, "num_classes": 7}),
        "spec.source.architecture.options",
        "labels lie outside",
    ),
    "empty data": (arrays(x=lambda x: x[:0], y=lambda y: y[:0]), "spec.data.trainingURI", ""),
    "NaN in the data": (arrays(x=with_nan), "spec.data.trainingURI", ""),
    "negative labels": (arrays(y=lambda y: y - 1), "spec.data.trainingURI", ""),
    "labels that don't fit the samples": (arrays(y=lambda y: y[:-1]), "spec.data.trainingURI", ""),
    "a normalization of other channels": (
        data(normalization={"mean": ["0.5"] * 3, "standardDeviation": ["0.5"] * 3}),
        "spec.data.normalization.mean",
        "the samples have 1 channel",
    ),
    "a deviation of zero": (
        data(normalization={"mean": ["0.5"], "standardDeviation": ["0"]}),
        "spec.data.normalization.standardDeviation",
        "must be above 0",
    ),
    "no prunable layer": (without_channels, "spec.source.architecture", "no prunable layer"),
    "nothing to make": (
        lambda spec, folder: [spec.pop(name) for name in ("source", "data", "methods")],
        "spec.source",
        "nothing to make",
    ),
    "a misspelt field": (lambda spec, folder: spec.update(metods={}), "spec.metods", "no such field"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_error_and_nothing_is_written(edgefolio, portfolio_file, tmp_path, case):
    change, field, problem = CASES[case]
    (tmp_path / "input").mkdir()
    path = portfolio_file(lambda document: change(document["spec"], tmp_path))
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    finished = edgefolio("make", "-f", path, "--work-dir", tmp_path / "work", "--json", cwd=tmp_path)
    assert finished.code == 2, (finished.stdout, finished.stderr)
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, finished.stderr
    assert problem in errors[0]
    assert f"\n  field:  {field}" in finished.stderr
    assert "\n  remedy: " in finished.stderr
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert {path.name for path in after - before if path.is_file()} <= {"lock"}
    assert not (tmp_path / "portfolios").exists()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("apiVersion: edgefolio.dev/v9\nkind: ModelPortfolio\n", "apiVersion"),
        ("kind: Deployment\n", "kind"),
        ("a: [", "-f"),
        ("\x00", "-f"),
        (None, "-f"),
    ],
)
def test_a_file_that_is_no_portfolio(edgefolio, tmp_path, text, field):
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    finished = edgefolio("make", "-f", path, cwd=tmp_path)
    assert finished.code == 2
    assert f"\n  field:  {field}" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_full_disk_while_publishing_leaves_the_old_revision_current(made, edgefolio, tmp_path):
    document = yaml.safe_load((made.folder / "portfolio.yaml").read_text())
    # Other selection, so that there is something to publish; all else is done already.
    document["spec"]["selection"] = {"maxVariants": 1}
    (tmp_path / "portfolio.yaml").write_text(yaml.safe_dump(document))
    repository = tmp_path / "repository"
    options = ("--work-dir", made.work, "--repository", repository)
    assert edgefolio("make", "-f", made.folder / "portfolio.yaml", *options).code == 0
    assert edgefolio("make", "-f", tmp_path / "portfolio.yaml", *options).code == 0
    before = Repository.open(str(repository)).current("digits")
    finished = edgefolio("make", "-f", made.folder / "portfolio.yaml", *options, largest_file=9000)
    assert finished.code == 2, finished.stderr
    assert "--repository" in finished.stderr
    assert "no space left" in finished.stderr
    assert Repository.open(str(repository)).current("digits") == before
    assert verify_repository(Repository.open(str(repository))).is_sound


def test_a_full_disk_while_making_is_the_users_error(edgefolio, portfolio_file, tmp_path):
    finished = edgefolio("make", "-f", portfolio_file(), "--work-dir", tmp_path / "work", largest_file=9000)
    assert finished.code == 2, finished.stderr
    assert "--work-dir" in finished.stderr
    assert "Traceback" not in finished.stderr
