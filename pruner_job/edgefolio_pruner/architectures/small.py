"""The smallest built-in networks: enough for 8 x 8 digits, trained in seconds."""

from __future__ import annotations

from torch import nn


def cnn(*, width: int = 16, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Three 3x3 convolutions with batch norm (w, 2w, 4w channels), a mean, a linear layer; images of 4 x 4 and more."""
    return nn.Sequential(
        *_block(in_channels, width, 1),
        *_block(width, 2 * width, 2),
        *_block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def mlp(*, width: int = 64, num_classes: int = 10, in_channels: int = 3, image_size: int = 8) -> nn.Module:
    """Two hidden layers of ``width`` and ``width // 2`` units over all pixels of a square image of ``image_size``."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * image_size * image_size, width),
        nn.ReLU(),
        nn.Linear(width, width // 2),
        nn.ReLU(),
        nn.Linear(width // 2, num_classes),
    )


def _block(in_channels: int, channels: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()
