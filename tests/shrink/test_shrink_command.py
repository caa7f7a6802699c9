"""``edgefolio shrink`` as a user calls it: what it writes and prints, and how it refuses bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from edgefolio.commands.main import build_app
from edgefolio_pruner.architectures import resnet8

RESNET = ["--architecture", "edgefolio:resnet8", "--option", "width=8"]
SHAPE = ["--input-shape", "3,16,16"]

FACTORY = """
import torch
from torch import nn

class TwoHeads(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.left, self.right = nn.Conv2d(width, 4, 1), nn.Conv2d(width, 2, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return {"left": self.left(x).mean((2, 3)), "right": self.right(x)}

def build(width=6):
    return TwoHeads(width)

def only_one_layer():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
"""


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a resnet8 in which a fifth of the filters are dead; their shifts are not zero."""
    module = resnet8(width=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.bias.copy_(torch.rand(part.bias.shape, generator=generator) - 0.3)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(part, torch.nn.Conv2d):
                part.weight[torch.rand(len(part.weight), generator=generator) < 0.2] = 0
    path = tmp_path_factory.mktemp("weights") / "sparse.safetensors"
    safetensors.torch.save_file(module.state_dict(), path)
    return path


def _shrink(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app(), ["shrink", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_shrinks_and_tells_it_in_json(sparse: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "shrunk.onnx"
    code, stdout, _ = _shrink(
        *RESNET, *SHAPE, "--weights", str(sparse), "--output", str(output), "--latency-samples", "3", "--json"
    )
    assert code == 0
    document = json.loads(stdout)
    for quantity in ("parameters", "macs", "bytes"):
        assert document[quantity]["after"] < document[quantity]["before"]
    assert document["bytes"]["after"] == output.stat().st_size
    assert document["exactness"]["float64RelativeDifference"] <= 1e-9
    assert document["parity"]["top1Agreement"] == 1.0
    assert document["latency"]["threads"] == 1
    assert set(document["latency"]["p50Milliseconds"]) == {"before", "after"}
    removed = sum(layer["before"] - layer["after"] for layer in document["layers"])
    assert removed == document["channelsRemoved"] > 0
    assert all(layer["keptBecause"] for layer in document["layers"] if layer["after"])

    module = resnet8(width=8).eval()
    module.load_state_dict(safetensors.torch.load_file(sparse))
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images.numpy()})
    with torch.no_grad():
        expected = module(images).numpy()
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_prints_a_table_and_takes_any_size(sparse: Path, tmp_path: Path) -> None:
    output = tmp_path / "shrunk.onnx"
    code, stdout, _ = _shrink(
        *RESNET, *SHAPE, "--weights", str(sparse), "-o", str(output), "--dynamic-size", "--latency-samples", "0"
    )
    assert code == 0
    for word in ("the rest stays", "MACs per sample", "parameters", "bytes", "Exact", str(output)):
        assert word in stdout.replace("\n", " ")
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": np.zeros((2, 3, 24, 20), np.float32)})
    assert logits.shape == (2, 10)


def test_takes_a_factory_with_several_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_headed_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("two_headed_nets").build(9)
    with torch.no_grad():
        module.stem.weight[3:6] = 0
    safetensors.torch.save_file(module.state_dict(), tmp_path / "weights.safetensors")
    arguments = ["--factory", "two_headed_nets:build", "--option", "width=9", "--weights", "weights.safetensors"]
    code, stdout, _ = _shrink(*arguments, *SHAPE, "--output", "out.onnx", "--latency-samples", "0", "--json")
    assert code == 0
    assert {layer["name"]: layer["after"] for layer in json.loads(stdout)["layers"]}["stem"] < 9
    session = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["left", "right"]


def test_the_same_weights_give_the_same_file(sparse: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for file in files:
        arguments = [*RESNET, *SHAPE, "--weights", str(sparse), "--output", str(file), "--latency-samples", "0"]
        assert _shrink(*arguments)[0] == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def _bad_weights(kind: str, sparse: Path, folder: Path) -> Path:
    state = safetensors.torch.load_file(sparse)
    path = folder / f"{kind}.safetensors"
    if kind == "pickle":
        torch.save(state, path)
        return path
    if kind == "nan":
        next(tensor for name, tensor in state.items() if name.endswith("weight"))[0] = float("nan")
    elif kind == "wider":
        state = resnet8(width=12).state_dict()
    elif kind == "garbage":
        path.write_bytes(b"no tensors here")
        return path
    safetensors.torch.save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("arguments", "weights", "expected"),
    [
        (["--architecture", "timm:resnt18"], "sparse", ["--architecture", "resnt18", "resnet18"]),
        (["--architecture", "nowhere:resnet18"], "sparse", ["--architecture", "nowhere:resnet18"]),
        (["--architecture", "edgefolio:resnet8", "--option", "width"], "sparse", ["--option", "name=value"]),
        ([], "sparse", ["exactly one of --architecture, --factory"]),
        ([*RESNET, "--factory", "nets:build"], "sparse", ["exactly one of --architecture, --factory"]),
        (["--factory", "no_such_module_anywhere:build"], "sparse", ["--factory", "no_such_module_anywhere"]),
        (RESNET, "wider", ["--weights", "12x3x3x3 given, 8x3x3x3 wanted", "more"]),
        (RESNET, "pickle", ["--weights", "pickle"]),
        (RESNET, "nan", ["--weights", "not finite"]),
        (RESNET, "garbage", ["--weights", "safetensors"]),
        (RESNET, "missing", ["--weights", "no such file"]),
        ([*RESNET, "--input-shape", "3x16x16"], "sparse", ["--input-shape", "3x16x16"]),
        ([*RESNET, "--input-shape", "3,0,16"], "sparse", ["--input-shape", "3,0,16"]),
        ([*RESNET, "--input-shape", "1,16,16"], "sparse", ["--input-shape", "1,16,16", "does not take"]),
        ([*RESNET, "--output", "."], "sparse", ["--output", "directory"]),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_written(
    arguments: list[str],
    weights: str,
    expected: list[str],
    sparse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    path = sparse if weights == "sparse" else tmp_path / "missing"
    if weights not in ("sparse", "missing"):
        path = _bad_weights(weights, sparse, tmp_path)
    given = [*arguments, "--weights", str(path)]
    for name, value in (("--input-shape", "3,16,16"), ("--output", "shrunk.onnx")):
        if name not in arguments:
            given += [name, value]
    code, _, stderr = _shrink(*given)
    assert code == 2
    shown = " ".join(stderr.split())
    for words in [*expected, "field:", "remedy:"]:
        assert words in shown
    assert list(empty.iterdir()) == []


def test_a_model_without_a_prunable_layer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_layer_net.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    state = {"1.weight": torch.ones(4, 48), "1.bias": torch.zeros(4)}
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    arguments = ["--factory", "one_layer_net:only_one_layer", "--weights", "weights.safetensors"]
    code, _, stderr = _shrink(*arguments, "--input-shape", "3,4,4", "--output", "shrunk.onnx")
    assert code == 2
    assert "no prunable layer" in " ".join(stderr.split())
    assert not (tmp_path / "shrunk.onnx").exists()
