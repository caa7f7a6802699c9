"""Large networks are proven, written and loaded without further copies of their weights, to the same numbers."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgefolio_pruner import exactness
from edgefolio_pruner.exactness import in_dtype, prove_exact
from edgefolio_pruner.export import export_onnx, onnx_file
from edgefolio_pruner.export.serialising import SerialisedModel
from edgefolio_pruner.finite import all_finite
from edgefolio_pruner.spatial import capture, compress


class Standardised(nn.Module):
    """A convolution whose weight is computed from another one, in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Conv2d(6, 8, 3, padding=1), nn.Linear(8, 3)
        self.first = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.inner.weight - self.inner.weight.mean((1, 2, 3), keepdim=True)
        maps = torch.conv2d(torch.relu(self.first(x)), weight, self.inner.bias, padding=1)
        answer: torch.Tensor = self.head(torch.relu(maps).mean((2, 3)))
        return answer


def sparse(module: nn.Module) -> nn.Module:
    """Every second filter is dead and gives a constant; borders of constants are merged."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            with torch.no_grad():
                part.weight[::2] = 0
                assert part.bias is not None
                part.bias.uniform_(0.1, 0.5)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.bias, 0.1, 0.5)
    return module.eval()


def nets() -> list[nn.Module]:
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )
    return [sparse(plain), sparse(Standardised())]


@pytest.mark.parametrize("place", range(len(nets())))
def test_weights_that_are_cast_as_they_are_read_give_the_same_network(place: int) -> None:
    module = nets()[place]
    samples = torch.randn(3, 3, 6, 6)
    captured = capture(module, (samples[:2],))
    whole = compress(in_dtype(captured, torch.float64)).module.state_dict()
    read = compress(in_dtype(captured, torch.float64, as_read=True)).module.state_dict()
    assert list(whole) == list(read)
    assert all(torch.equal(whole[name], read[name]) and whole[name].dtype == read[name].dtype for name in whole)
    assert {tensor.dtype for tensor in captured.parameters.values()} == {torch.float32, torch.int64} or all(
        tensor.dtype == torch.float32 for tensor in captured.parameters.values()
    )


@pytest.mark.parametrize("place", range(len(nets())))
def test_a_large_network_is_proven_to_the_same_numbers(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = nets()[place]
    samples = torch.randn(70, 3, 6, 6)
    captured = capture(module, (samples[:2],))
    compressed = compress(captured)
    small = prove_exact(module, captured, compressed, samples)
    monkeypatch.setattr(exactness, "_LARGE", 0)
    large = prove_exact(module, captured, compressed, samples)
    assert large == small
    assert large.holds
    assert next(module.parameters()).dtype == torch.float32


def test_a_large_file_is_checked_without_its_weights_and_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nets()[0]

    def export(name: str) -> bytes:
        written = export_onnx(
            module, (torch.randn(2, 3, 6, 6),), tmp_path / name, input_names=["input"], output_names=["output"]
        )
        return written.path.read_bytes()

    whole = export("whole.onnx")
    monkeypatch.setattr(onnx_file, "_CHECKED_WHOLE", 0)
    monkeypatch.setattr(onnx_file, "_LARGE_WEIGHT", 64)
    assert export("large.onnx") == whole
    broken = onnx.load_from_string(whole)
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError, match="nowhere"):
        onnx_file._check(broken, 1)


def test_the_pieces_of_a_model_are_the_bytes_that_protobuf_writes(tmp_path: Path) -> None:
    file = export_onnx(
        nets()[1], (torch.randn(2, 3, 6, 6),), tmp_path / "a.onnx", input_names=["input"], output_names=["output"]
    )
    model = onnx.load(file.path)
    model.graph.initializer.append(onnx.helper.make_tensor("typed", onnx.TensorProto.INT64, [2], [3, 1 << 40]))
    model.graph.initializer.append(onnx.helper.make_tensor("empty", onnx.TensorProto.FLOAT, [0], b"", raw=True))
    model.metadata_props.add(key="made", value="by hand")
    serialised = SerialisedModel(model)
    content = b"".join(serialised.pieces())
    assert content == model.SerializeToString(deterministic=True)
    assert len(content) == serialised.size
    assert file.path.stat().st_size == file.bytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_not_finite_is_found_without_a_copy(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    assert all_finite(torch.full((64,), largest, dtype=dtype))
    assert all_finite(torch.tensor([largest, -largest], dtype=dtype))
    for wrong in (float("nan"), float("inf"), float("-inf")):
        assert not all_finite(torch.tensor([1, wrong], dtype=dtype))
    assert not all_finite(torch.tensor([float("inf"), float("-inf")], dtype=dtype))
    assert all_finite(torch.arange(3))
