"""Generated nets: blocks of every way in which channels are tied, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


def convolution(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two convolutions beside a skip, with a projection where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = convolution(inputs, 12), convolution(12, outputs)
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.second(functional.relu(self.first(hidden))) + self.skip(hidden))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection onto a skip without an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand, self.depthwise = convolution(channels, 20, 1), convolution(20, 20, groups=20)
        self.squeeze, self.excite = nn.Conv2d(20, 8, 1), nn.Conv2d(8, 20, 1)
        self.project = convolution(20, channels, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = functional.relu6(self.depthwise(functional.relu6(self.expand(hidden))))
        gate = self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(wide, 1))))
        return hidden + self.project(wide * functional.hardsigmoid(gate))


class Concatenation(nn.Module):
    """Two branches side by side, both read by one layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left, self.right = convolution(inputs, 8, 1), convolution(inputs, 12)
        self.join = convolution(20, outputs, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.join(functional.relu(torch.cat([self.left(hidden), self.right(hidden)], 1))))


class Grouped(nn.Module):
    """A bottleneck around a convolution with two groups."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.grouped, self.up = (
            convolution(channels, 24, 1),
            convolution(24, 24, groups=2),
            convolution(24, channels, 1),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.grouped(functional.relu(self.down(hidden))))
        return functional.relu(hidden + self.up(inner))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Residual(12, 12),
    "projection": lambda: Residual(12, 12 + 4),
    "inverted": lambda: Inverted(12),
    "concatenation": lambda: Concatenation(12, 12),
    "grouped": lambda: Grouped(12),
}


def net_of(names: list[str], seed: int) -> nn.Module:
    """A net of these blocks with random weights and batch norms that have seen data."""
    torch.manual_seed(seed)
    blocks: list[nn.Module] = [convolution(1, 12), nn.ReLU()]
    for name in names:
        blocks.append(BLOCKS[name]())
        if name == "projection":
            blocks.append(convolution(16, 12, 1))
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)).train()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    for _ in range(12):
        net(torch.randn(64, 1, 6, 6))
    return net.eval()


def samples(seed: int = 9, number: int = 64) -> torch.Tensor:
    return torch.randn(number, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
