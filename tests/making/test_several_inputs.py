"""Networks that take several inputs: shrunk, made by the one-shot route, and refused where that is all there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from edgefolio.commands.main import build_app
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.cli.shrink import _parse_input
from edgefolio_pruner.oneshot import prune_to_targets
from edgefolio_pruner.pipeline import make_portfolio
from edgefolio_pruner.scoring.outputs import input_names
from edgefolio_pruner.shrinking import shrink_model

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    """A picture and a row of numbers; logits and features, as a dict."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )
        self.row = nn.Sequential(nn.Linear(5, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, image, row):
        joined = torch.cat([self.maps(image).mean((2, 3)), self.row(row)], 1)
        return {"logits": self.head(joined), "joined": joined}


def build():
    return Net()
'''
"""As a user writes it."""


class Gate(nn.Module):
    """The second input scales the channels of the first one's maps; a tuple comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.gate = nn.Linear(4, 12)
        self.second = nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, picture: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = torch.relu(self.first(picture)) * torch.sigmoid(self.gate(numbers))[:, :, None, None]
        maps = torch.relu(self.second(maps))
        return self.head(maps.mean((2, 3))), maps


class Signals(nn.Module):
    """Three inputs of other ranks: a signal, a row and a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = nn.Conv1d(2, 8, 3, padding=1)
        self.row = nn.Linear(3, 8)
        self.steps = nn.Linear(4, 8)
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, signal: torch.Tensor, row: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        joined = self.signal(signal).relu().mean(2) + self.row(row).relu() + self.steps(steps).relu().mean(1)
        answer: torch.Tensor = self.head(self.hidden(joined).relu())
        return answer


SHAPES: dict[type[nn.Module], dict[str, tuple[int, ...]]] = {
    Gate: {"picture": (1, 8, 8), "numbers": (4,)},
    Signals: {"signal": (2, 10), "row": (3,), "steps": (6, 4)},
}


@pytest.mark.parametrize("kind", list(SHAPES))
def test_the_shrunk_file_has_all_inputs_by_name_and_answers_as_the_model(
    kind: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    with torch.no_grad():
        for layer in module.children():
            if isinstance(layer, nn.Conv1d | nn.Conv2d) or (isinstance(layer, nn.Linear) and layer.out_features > 8):
                layer.weight[::2] = 0
                assert layer.bias is not None
                layer.bias[::2] = 0
    shapes = SHAPES[kind]  # type: ignore[index]
    found = shrink_model(module, input_shapes=shapes, output=tmp_path / "small.onnx", latency_samples=1)
    assert found.report.channels_removed > 0
    assert found.after.input_names == tuple(shapes)
    inputs = [torch.randn((3, *shape)) for shape in shapes.values()]
    with torch.no_grad():
        wanted = module(*inputs)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {name: given.numpy() for name, given in zip(shapes, inputs, strict=True)})
    for one, other in zip(wanted if isinstance(wanted, tuple) else (wanted,), got, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


@pytest.mark.parametrize("kind", list(SHAPES))
def test_the_one_shot_route_reaches_its_share_and_stays_near(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    shapes = SHAPES[kind]  # type: ignore[index]
    samples = tuple(torch.randn((96, *shape)) for shape in shapes.values())
    (found,) = prune_to_targets(module=module, calibration=samples, macs_percents=[60], seed=0, threads=1)
    assert found.reached
    pruned = kind()
    pruned.load_state_dict(dict(found.state))
    fresh = tuple(torch.randn((64, *shape)) for shape in shapes.values())
    with torch.no_grad():
        dense, small = (network.eval()(*fresh) for network in (module, pruned))
        dense, small = (out[0] if isinstance(out, tuple) else out for out in (dense, small))
    # Of what a constant answer would miss.
    assert float((dense - small).square().mean()) < 0.5 * float((dense - dense.mean(0)).square().mean())


def _site(folder: Path, monkeypatch: pytest.MonkeyPatch, **data: Any) -> Callable[..., ModelPortfolio]:
    """Network, weights and data in ``folder``; labels are the dense model's own answers."""
    (folder / "two_inputs_net.py").write_text(NETS)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    import two_inputs_net  # type: ignore[import-not-found]

    torch.manual_seed(3)
    module = two_inputs_net.build().eval()
    generator = torch.Generator().manual_seed(0)
    arrays = {
        "image": torch.randn((200, 3, 8, 8), generator=generator),
        "row": 3 * torch.randn((200, 5), generator=generator),
    }
    with torch.no_grad():
        # Each class is the answer for some.
        module.head[2].bias -= module(arrays["image"], arrays["row"])["logits"].mean(0)
        labels = module(arrays["image"], arrays["row"])["logits"].argmax(1)
    save_file(module.state_dict(), folder / "w.safetensors")
    np.savez(folder / "data.npz", y=labels.numpy(), **{name: given.numpy() for name, given in arrays.items()})

    def portfolio(**methods: Any) -> ModelPortfolio:
        return ModelPortfolio.model_validate(
            {
                "apiVersion": "edgefolio.dev/v1alpha1",
                "kind": "ModelPortfolio",
                "metadata": {"name": "two"},
                "spec": {
                    "source": {
                        "architecture": {"library": "factory", "name": "two_inputs_net:build"},
                        "weightsURI": str(folder / "w.safetensors"),
                    },
                    "data": {
                        "trainingURI": str(folder / "data.npz"),
                        "inputs": ["image", "row"],
                        "calibrationSamples": 64,
                        **data,
                    },
                    "methods": methods or {"oneShot": {"macsPercent": [60]}},
                    "profiling": {"samples": 20, "rounds": 2, "batchSizes": [1]},
                    "repository": {"uri": str(folder / "published")},
                    "serving": {"modelName": "two"},
                },
            }
        )

    return portfolio


def test_a_portfolio_of_two_inputs_is_published_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portfolio = _site(tmp_path, monkeypatch)
    made = make_portfolio(portfolio(), work_directory=tmp_path / "work", threads=1)
    manifest: Manifest = made.manifest
    assert [(one.name, one.shape) for one in manifest.signature.inputs] == [("image", (3, 8, 8)), ("row", (5,))]
    assert [one.name for one in manifest.signature.outputs] == ["logits", "joined"]
    assert {variant.name for variant in manifest.variants} <= {"dense", "oneshot-60"}
    for variant in manifest.variants:
        assert [tensor.name for tensor in variant.probe.inputs] == ["image", "row"]
        path = tmp_path / "published" / "models" / "two" / variant.file
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        fed = {
            tensor.name: np.array(tensor.values, dtype=np.float32).reshape(tensor.shape)
            for tensor in variant.probe.inputs
        }
        for tensor, got in zip(variant.probe.outputs, session.run(None, fed), strict=True):
            wanted = np.array(tensor.values).reshape(tensor.shape)
            np.testing.assert_allclose(got, wanted, atol=variant.probe.absolute_tolerance)
        assert variant.test_accuracy.percent > 60
    assert manifest.preprocessing.mean == ()


@pytest.mark.parametrize(
    ("data", "methods", "field", "said"),
    [
        ({}, {"sparseTraining": {}}, "spec.methods.sparseTraining", "neither trained nor quantized nor divided"),
        (
            {},
            {"oneShot": {}, "quantization": {"precision": "Int8"}},
            "spec.methods.quantization",
            "neither trained nor quantized nor divided",
        ),
        (
            {},
            {"oneShot": {"distillationEpochs": 1}},
            "spec.methods.oneShot.distillationEpochs",
            "neither trained nor quantized nor divided",
        ),
        ({"inputs": ["image", "rows"]}, {}, "spec.data.trainingURI", "no array 'rows'"),
        ({"inputs": ["image", "row", "y"]}, {}, "spec.data.trainingURI", "no labels"),
        ({"imageSize": 16}, {}, "spec.data.imageSize", "as they are"),
        ({"normalization": {"mean": ["0"], "standardDeviation": ["1"]}}, {}, "spec.data.normalization", "as they are"),
        ({"trainingURI": "builtin:digits"}, {}, "spec.data.trainingURI", "one input"),
        (
            {"inputs": None},
            {},
            "spec.source.architecture",
            r"takes 2 inputs \(image, row\), and the data has 1. Set data.inputs",
        ),
    ],
)
def test_what_several_inputs_cannot_have_is_refused_before_anything_is_made(
    data: dict[str, Any],
    methods: dict[str, Any],
    field: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    portfolio = _site(tmp_path, monkeypatch, **data)(**methods)
    with pytest.raises(UserError, match=said) as error:
        make_portfolio(portfolio, work_directory=tmp_path / "work", threads=1)
    assert error.value.field == field
    assert not (tmp_path / "published").exists()


@pytest.mark.parametrize("inputs", [["image"], ["image", "Image"], ["image", "two words"], ["image", "1st"]])
def test_names_of_inputs_are_two_or_more_different_words(inputs: list[str], tmp_path: Path) -> None:
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="inputs"):
        _site(tmp_path, patched, inputs=inputs)()


def test_shapes_of_the_command_line_may_have_names() -> None:
    assert _parse_input("3,8,8") == ("", (3, 8, 8))
    assert _parse_input("image=3,8,8") == ("image", (3, 8, 8))
    with pytest.raises(UserError, match="no name"):
        _parse_input("a b=3")
    assert input_names(Gate(), 2) == ("picture", "numbers")
    assert input_names(Gate(), 1) == ("input",)


def test_the_command_shrinks_a_network_of_two_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _site(tmp_path, monkeypatch)
    arguments = ["shrink", "--factory", "two_inputs_net:build", "--weights", "w.safetensors", "--latency-samples", "0"]
    shapes = ["--input-shape", "3,8,8", "--input-shape", "numbers=5"]
    done = CliRunner().invoke(build_app(), [*arguments, *shapes, "-o", "out.onnx"])
    assert done.exit_code == 0, done.output
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["image", "numbers"]
    refused = CliRunner().invoke(build_app(), [*arguments, *shapes[:2], "-o", "other.onnx"])
    assert refused.exit_code == 2
    assert "does not take this input" in refused.output
    assert not (tmp_path / "other.onnx").exists()
