"""Signals [N, length] that a network takes as maps of one channel: what convolutions write is pruned like any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgefolio_pruner.exactness import prove_exact
from edgefolio_pruner.oneshot import least_share
from edgefolio_pruner.spatial import capture, channel_groups, compress


class Maps(nn.Module):
    """A signal as a map of width one, padded along its length, batch norm behind the activation (pitch trackers)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, (8, 1), (2, 1)), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, (4, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.norm(F.relu(self.first(F.pad(x[:, None, :, None], (0, 0, 3, 4)))))
        maps = F.relu(self.second(F.pad(F.max_pool2d(maps, (2, 1)), (0, 0, 1, 2))))
        answer: torch.Tensor = self.head(maps.mean((2, 3)))
        return answer


class Lines(nn.Module):
    """A signal as one channel, unpadded, through one-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 8, 5, padding=2), nn.Conv1d(8, 6, 3, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = F.relu(self.second(F.relu(self.first(x.unsqueeze(1)))))
        answer: torch.Tensor = self.head(maps.mean(2))
        return answer


class Folded(nn.Module):
    """A signal folded into a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = F.relu(self.second(F.relu(self.first(x.reshape(-1, 1, 4, 8)))))
        answer: torch.Tensor = self.head(maps.mean((2, 3)))
        return answer


@pytest.mark.parametrize("kind", [Maps, Lines, Folded])
@pytest.mark.parametrize("constant", [False, True])
def test_dead_filters_of_the_first_convolution_are_removed_exactly(
    kind: Callable[[], nn.Module], constant: bool
) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    with torch.no_grad():
        for layer in (module.first, module.second):
            assert isinstance(layer, nn.Conv1d | nn.Conv2d)
            assert layer.bias is not None
            layer.weight[::2] = 0
            layer.bias[::2] = 0.3 if constant else -0.3
    samples = torch.randn(16, 32)
    captured = capture(module, (samples[:2],))
    compressed = compress(captured)
    assert prove_exact(module, captured, compressed, samples).holds
    after = {layer.name: layer.after for layer in compressed.report.layers}
    # A constant that meets the padding of the convolution stays once; where padding is a step of its own, everywhere.
    assert after["first"] <= (8 if constant and kind is Maps else 5)
    assert after["second"] == 3


@pytest.mark.parametrize("kind", [Maps, Lines, Folded])
def test_its_filters_are_a_group_that_can_be_pruned(kind: Callable[[], nn.Module]) -> None:
    captured = capture(kind().eval(), (torch.randn(2, 32),))
    found = {group.name: group for group in channel_groups(captured)}
    assert found["first"].prunable
    assert found["first"].channels == 8
    if kind is Maps:
        assert "first" in least_share(captured).groups
