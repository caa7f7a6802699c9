"""ONNX files: right, standard, small in versions, equal in bytes for equal weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.export import export_onnx, parity
from edgefolio_pruner.shrinking import shrink_model


class Several(nn.Module):
    """Two outputs; convolutions of every kind before batch norms; one layer and its norm used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.up, self.up_norm = nn.ConvTranspose2d(8, 12, 3, 2, groups=4, bias=False), nn.BatchNorm2d(12, affine=False)
        self.twice, self.twice_norm = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.last, self.last_norm = nn.Linear(12, 10, bias=False), nn.BatchNorm1d(10)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.first_norm(self.first(x)))
        x = self.up_norm(self.up(x))
        for _ in range(2):
            x = torch.relu(self.twice_norm(self.twice(x)))
        return {"logits": self.last_norm(self.last(x.mean((2, 3)))), "map": x}


def _trained(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    module.train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.1)
        for _ in range(3):
            module(torch.randn(8, 3, 12, 12, generator=generator) * 2)
    return module.eval()


def _export(module: nn.Module, path: Path, *, dynamic_size: bool = False) -> onnx.ModelProto:
    export_onnx(
        module,
        (torch.zeros(1, 3, 12, 12),),
        path,
        input_names=["image"],
        output_names=["logits", "map"],
        dynamic_size=dynamic_size,
    )
    return onnx.load(path)


def test_file_gives_the_modules_answers_with_norms_folded(tmp_path: Path) -> None:
    module = _trained(Several())
    model = _export(module, tmp_path / "model.onnx")
    samples = np.random.default_rng(0).normal(size=(21, 3, 12, 12)).astype(np.float32)
    result = parity(module, tmp_path / "model.onnx", samples, batch=8)
    assert result.samples == 21
    assert result.top1_agreement == 1.0
    assert result.relative_difference < 1e-5
    # The layer that is used twice with its norm shares weights between two places, so only its norms stay.
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 2


def test_parity_notices_other_weights(tmp_path: Path) -> None:
    module = _trained(Several())
    _export(module, tmp_path / "model.onnx")
    with torch.no_grad():
        module.get_parameter("last.weight").add_(0.1)
    samples = np.random.default_rng(0).normal(size=(8, 3, 12, 12)).astype(np.float32)
    assert parity(module, tmp_path / "model.onnx", samples, batch=8).relative_difference > 1e-3


def test_file_is_standard_and_readable_by_deployed_servers(tmp_path: Path) -> None:
    model = _export(_trained(Several()), tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 9
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits", "map"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_equal_weights_give_equal_bytes_and_leave_no_other_file(tmp_path: Path) -> None:
    digests = set()
    for name in ("one.onnx", "two.onnx"):
        _export(_trained(Several()), tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.onnx", "two.onnx"]


def test_dynamic_size_takes_other_sizes(tmp_path: Path) -> None:
    module = _trained(Several())
    _export(module, tmp_path / "model.onnx", dynamic_size=True)
    samples = np.random.default_rng(0).normal(size=(3, 3, 17, 9)).astype(np.float32)
    assert parity(module, tmp_path / "model.onnx", samples, batch=2).relative_difference < 1e-5


def test_export_changes_neither_weights_nor_modes(tmp_path: Path) -> None:
    module = _trained(Several()).train()
    module.get_submodule("twice_norm").eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    _export(module, tmp_path / "model.onnx")
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_what_cannot_be_written_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(UserError, match="cannot be written as ONNX"):
        export_onnx(Branching(), (torch.zeros(2, 3),), tmp_path / "model.onnx", input_names=["x"], output_names=["y"])
    with pytest.raises(ValueError, match=r"float32"):
        _export(Several().double(), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no operator set older"):
        export_onnx(
            nn.Linear(3, 2), (torch.zeros(2, 3),), tmp_path / "m.onnx", input_names=["x"], output_names=["y"], opset=11
        )
    assert list(tmp_path.iterdir()) == []


def test_onnxruntime_runs_any_batch(tmp_path: Path) -> None:
    _export(_trained(Several()), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        logits, _ = session.run(None, {"image": np.zeros((batch, 3, 12, 12), np.float32)})
        assert logits.shape == (batch, 10)


class NamedLikeItsOperators(nn.Module):
    """Two inputs and two outputs, which may be called as what is computed between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        inner = self.b(self.a(x).relu()).relu() + y
        return {"linear": self.c(inner), "relu": inner}


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (("x", "y"), ("linear", "relu")),
        (("relu", "linear_1"), ("first", "second")),
        (("relu", "linear"), ("add", "linear_1")),
        (("a.weight", "b.bias"), ("first", "c.weight")),
        (("input", "output"), ("edgefolio.input.0", "relu_1")),
        (("serving_default_input_2:0", "a/b.c"), ("StatefulPartitionedCall:1", "Identity:0")),
    ],
)
def test_any_names_of_inputs_and_outputs(inputs: tuple[str, str], outputs: tuple[str, str], tmp_path: Path) -> None:
    module = NamedLikeItsOperators().eval()
    samples = torch.randn(3, 6), torch.randn(3, 8)
    written = export_onnx(module, samples, tmp_path / "m.onnx", input_names=inputs, output_names=outputs)
    assert (written.input_names, written.output_names) == (inputs, outputs)
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), {name: given.numpy() for name, given in zip(inputs, samples, strict=True)})
    with torch.inference_mode():
        for one, other in zip(found, module(*samples).values(), strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


POOLS = {
    "largest of signals": (nn.AdaptiveMaxPool1d(3), (16,)),
    "largest": (nn.AdaptiveMaxPool2d(3), (16, 16)),
    "largest of one axis": (nn.AdaptiveMaxPool2d((None, 5)), (9, 13)),
    "largest, more than there are": (nn.AdaptiveMaxPool2d(7), (4, 10)),
    "largest of volumes": (nn.AdaptiveMaxPool3d((3, 2, 1)), (8, 8, 8)),
    "mean of volumes": (nn.AdaptiveAvgPool3d(3), (8, 7, 6)),
    "mean of volumes, even": (nn.AdaptiveAvgPool3d(2), (8, 8, 8)),
    "mean": (nn.AdaptiveAvgPool2d((3, 5)), (16, 7)),
}


@pytest.mark.parametrize("kind", sorted(POOLS))
def test_adaptive_pools_of_any_size(kind: str, tmp_path: Path) -> None:
    pool, sizes = POOLS[kind]
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(sizes)]
    torch.manual_seed(0)
    module = nn.Sequential(convolution(2, 6, 3, padding=1), nn.ReLU(), pool, nn.Flatten()).eval()
    values = int(np.prod(module(torch.zeros(1, 2, *sizes)).shape[1:]))
    module.append(nn.Linear(values, 4))
    with torch.no_grad():
        # Two dead channels, which the exact pruning removes in front of the pool.
        module[0].weight[1:3] = 0
        module[0].bias[1:3] = 0
    result = shrink_model(module, input_shapes={"input": (2, *sizes)}, output=tmp_path / "m.onnx", latency_samples=0)
    assert result.report.channels_removed == 2
    samples = torch.randn(5, 2, *sizes)
    (found,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": samples.numpy()})
    np.testing.assert_allclose(found, module(samples).detach().numpy(), rtol=1e-4, atol=1e-5)


class Places(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        largest, places = nn.functional.adaptive_max_pool2d(x, 3, return_indices=True)
        return largest + places


def test_a_pool_whose_places_are_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adaptive_max_pool2d"):
        export_onnx(Places(), (torch.zeros(2, 3, 16, 16),), tmp_path / "m.onnx", input_names=["x"], output_names=["y"])
