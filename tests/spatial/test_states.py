"""What becomes of a constant channel on its way: it stays one, or the edges differ, or it comes alive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from spatial_support.nets import after, lively, shrink, silence
from torch import nn


class Between(nn.Module):
    """A convolution, something in between, and a linear layer at each position that can take over any constant."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.between = between
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x)))


KEEP = {
    "relu": F.relu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "gelu": F.gelu,
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "scalars": lambda x: (2 - x * 3) / 4 + 1,
    "square": lambda x: x**2,
    "max pool with padding": lambda x: F.max_pool2d(x, 3, 2, 1),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "average pool that does not count padding": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "average pool with ceil mode": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "adaptive pools": lambda x: F.adaptive_avg_pool2d(F.adaptive_max_pool2d(x, 4), 3),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, size=(5, 9), mode="bilinear", align_corners=False),
    "reflection": lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"),
    "replication": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "crop": lambda x: x[:, :, 1:-1, ::2],
    "flip": lambda x: x.flip(3),
    "channels last and back": lambda x: x.permute(0, 2, 3, 1).mul(2).permute(0, 3, 1, 2),
    "flatten and back": lambda x: x.flatten(1).reshape(-1, 6, 8, 8),
    "largest": lambda x: x.amax((2, 3), keepdim=True),
}


@pytest.mark.parametrize("between", KEEP.values(), ids=KEEP.keys())
def test_constants_are_taken_over_by_the_bias_behind(between: Callable[[torch.Tensor], torch.Tensor]) -> None:
    module = lively(Between(between))
    silence(module.first, [1, 4], bias=0.9)
    silence(module.first, [2], bias=0.0)
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"first": 3, "last": 4}


BORDER = {
    "zero padding": lambda x: F.pad(x, (1, 1, 1, 1)),
    "padding with another value": lambda x: F.pad(x, (1, 0, 0, 0), value=0.25),
    "average pool that counts padding": lambda x: F.avg_pool2d(x, 3, 1, 1),
}


@pytest.mark.parametrize("between", BORDER.values(), ids=BORDER.keys())
def test_a_constant_whose_edges_differ_is_kept_and_a_zero_is_not(
    between: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    module = lively(Between(between))
    silence(module.first, [1, 4], bias=0.9)
    padded_with_zero = "0.25" not in str(between) and between is not BORDER["padding with another value"]
    silence(module.first, [2], bias=0.0 if padded_with_zero else 0.25)
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"first": 5, "last": 4}


def test_padding_with_the_constant_itself_keeps_it() -> None:
    module = lively(Between(lambda x: F.pad(x, (1, 1, 1, 1), value=0.9)))
    silence(module.first, [1, 4], bias=0.9)
    assert after(shrink(module, (3, 8, 8))) == {"first": 4, "last": 4}


def test_a_filter_that_reads_constants_under_zero_padding_has_edges() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 4, 1)))
    silence(module[0], [0, 1], bias=0.5)
    with torch.no_grad():
        # Filter 0 reads constants alone; filter 1 reads them with its middle tap alone, where padding never shows.
        module[1].weight[0, 2:] = 0
        module[1].weight[1, 2:] = 0
        module[1].weight[1] *= torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"0": 5, "1": 4, "2": 4}
    second = compressed.report.layers[1]
    assert second.folded_constant == 1
    assert "border: 1" in second.kept_because


def test_a_scale_of_zero_makes_a_live_channel_constant_and_its_filter_unread() -> None:
    module = lively(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3))
    )
    with torch.no_grad():
        module[2].weight[[1, 3]] = 0
        module[2].bias[[1, 3]] = torch.tensor([0.7, -0.7], dtype=torch.float64)
        # Only filters that are gone read channel 2.
        module[1].weight[[0, 2, 4], 2] = 0
    compressed = shrink(module, (3, 8, 8))
    assert after(compressed) == {"0": 5, "1": 3, "4": 4}
    assert compressed.report.layers[1].folded_constant == 1
    assert compressed.report.layers[1].removed_zero == 1


def test_channels_that_nobody_reads_go_and_take_theirs_along() -> None:
    module = lively(nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)))
    with torch.no_grad():
        module[4].weight[:, [0, 5]] = 0
        module[2].weight[1:5, 3] = 0
    assert after(shrink(module, (3, 8, 8))) == {"0": 5, "2": 4, "4": 4}


def test_edges_are_gone_once_all_positions_are_pooled_or_flattened() -> None:
    class Pooled(nn.Module):
        def __init__(self, flatten: bool) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 1)
            self.second = nn.Conv2d(6, 5, 3, padding=1)
            self.head = nn.Linear(5 * 36 if flatten else 5, 4)
            self.flatten = flatten

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.second(self.first(x)))
            return self.head(x.flatten(1) if self.flatten else x.mean((2, 3)))

    for flatten in (True, False):
        module = lively(Pooled(flatten))
        silence(module.first, [0, 1], bias=0.5)
        with torch.no_grad():
            module.second.weight[[0, 3], 2:] = 0
            module.second.bias[[0, 3]] = 1.0
        compressed = shrink(module, (3, 6, 6))
        # Filters 0 and 3 read constants alone; as numbers the head's bias takes them over.
        assert after(compressed) == {"first": 5, "second": 3, "head": 4}
