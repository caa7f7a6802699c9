"""Residual networks in the CIFAR style: a 3x3 stem, three stages of basic blocks, a mean and a linear head.

Depth 6n + 2 with n blocks per stage and widths w, 2w, 4w (He et al. 2016, section 4.2), with one difference: where a
stage changes the width, the shortcut is a 1x1 convolution with batch norm, not a zero-padded copy.
"""

from __future__ import annotations

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one may halve the size."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.relu = nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``[N, in_channels, H, W]`` -> ``[N, channels, ceil(H / stride), ceil(W / stride)]``."""
        hidden = self.relu(self.bn1(self.conv1(inputs)))
        result: torch.Tensor = self.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))
        return result


class ResNet(nn.Module):
    """The whole network; ``forward`` maps ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``, any H, W >= 4."""

    def __init__(self, blocks_per_stage: int, *, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(width, width, blocks_per_stage, 1)
        self.layer2 = _stage(width, 2 * width, blocks_per_stage, 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks_per_stage, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images."""
        hidden = self.relu(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: torch.Tensor = self.fc(self.pool(hidden).flatten(1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet8(*, width: int = 16, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-8: one block per stage."""
    return ResNet(1, width=width, num_classes=num_classes, in_channels=in_channels)


def resnet20(*, width: int = 16, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-20: three blocks per stage."""
    return ResNet(3, width=width, num_classes=num_classes, in_channels=in_channels)


def resnet56(*, width: int = 16, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-56: nine blocks per stage."""
    return ResNet(9, width=width, num_classes=num_classes, in_channels=in_channels)
