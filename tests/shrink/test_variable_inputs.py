"""A module whose ``forward`` takes ``*inputs`` is captured and written as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgefolio_pruner.export import export_onnx, parity
from edgefolio_pruner.spatial import capture, compress


class Star(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(inputs[0])))


@pytest.mark.parametrize("dynamic_size", [False, True])
def test_star_inputs_are_written_with_a_free_batch(tmp_path: Path, dynamic_size: bool) -> None:
    module = Star().eval()
    with torch.no_grad():
        module.first.weight[:3] = 0
    example = (torch.randn(2, 3, 8, 8),)
    compressed = compress(capture(module, example, dynamic_size=dynamic_size))
    assert compressed.report.layers[0].after == 3
    for name, part in (("before", module), ("after", compressed.module)):
        path = tmp_path / f"{name}.onnx"
        written = export_onnx(
            part, example, path, input_names=["input"], output_names=["output"], dynamic_size=dynamic_size
        )
        assert written.input_names == ("input",)
        size = 12 if dynamic_size else 8
        samples = torch.randn(5, 3, size, size).numpy()
        assert parity(part, path, samples, batch=5).relative_difference < 1e-5
