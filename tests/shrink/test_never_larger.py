"""A shrunk model is never larger than it came, and is right for one sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.cli.shrink import _why_nothing
from edgefolio_pruner.shrinking import shrink_model

torch.set_num_threads(1)


class Twice(nn.Module):
    """One convolution used ``times`` times, each time on other values."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.block = nn.Conv2d(24, 24, 3, padding=1)
        self.head = nn.Linear(24, 4)
        self.times = times

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.stem(images))
        for _ in range(self.times):
            hidden = torch.relu(self.block(hidden))
        return self.head(hidden.mean((2, 3)))


def sparse(module: nn.Module, *, dead: int) -> nn.Module:
    """With ``dead`` filters of the block that give a constant."""
    with torch.no_grad():
        module.block.weight[:dead] = 0
        module.block.bias[:dead] = 0.3
    return module


def stored(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("dead", [1, 14, 23])
def test_a_shared_convolution_is_not_copied(tmp_path: Path, times: int, dead: int) -> None:
    torch.manual_seed(0)
    module = sparse(Twice(times), dead=dead)
    result = shrink_model(module, input_shapes={"input": (3, 8, 8)}, output=tmp_path / "out.onnx", latency_samples=0)
    assert result.report.parameters_after <= result.report.parameters_before
    assert result.after.bytes <= result.before.bytes
    assert stored(tmp_path / "out.onnx") == result.after.bytes
    assert result.dead_filters == dead
    if not result.report.channels_removed:
        assert f"though {dead} filters are dead" in _why_nothing(result)
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"))
    samples = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        expected = module.eval()(samples).numpy()
    for batch in (samples[:1], samples[:2], samples):
        found = session.run(None, {"input": batch.numpy()})[0]
        assert np.abs(found - expected[: len(batch)]).max() < 1e-4


def test_a_convolution_used_once_is_still_shrunk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = shrink_model(
        sparse(Twice(1), dead=14), input_shapes={"input": (3, 8, 8)}, output=tmp_path / "out.onnx", latency_samples=0
    )
    assert result.report.channels_removed == 14


class Squeezed(Twice):
    """Its head drops every axis of one, among them that of a batch of one."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.block(torch.relu(self.stem(images))))
        return self.head(nn.functional.adaptive_avg_pool2d(hidden, 1).squeeze())


class OneOutput(Twice):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images)[:, :1].squeeze()


class Fixed(Twice):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.block(torch.relu(self.stem(images))))
        if len(images) == 1:
            raise ValueError("two or more")
        return self.head(hidden.mean((2, 3)))


@pytest.mark.parametrize("kind", [Squeezed, OneOutput, Fixed])
def test_a_batch_of_one_that_is_another_is_refused(tmp_path: Path, kind: type[Twice]) -> None:
    with pytest.raises(UserError, match="for a batch of one sample") as caught:
        shrink_model(kind(1), input_shapes={"input": (3, 8, 8)}, output=tmp_path / "out.onnx", latency_samples=0)
    assert "squeeze" in caught.value.remedy
    assert not (tmp_path / "out.onnx").exists()
