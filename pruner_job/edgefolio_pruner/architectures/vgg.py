"""Plain convolutional networks: VGG-11 and VGG-16 with batch norm and one linear layer, for small images.

Configurations A and D of Simonyan and Zisserman (2015); the last max-pool is a mean over the positions, so that images
of 16 x 16 and more fit.
"""

from __future__ import annotations

import torch
from torch import nn

# Output channels in units of the width (64 in the paper); 0 is a 2x2 max-pool.
_VGG11 = (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8)
_VGG16 = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8)


class VGG(nn.Module):
    """``forward`` maps ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``, H, W >= 16."""

    def __init__(self, plan: tuple[int, ...], *, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for multiple in plan:
            if multiple == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(channels, multiple * width, 3, padding=1, bias=False),
                nn.BatchNorm2d(multiple * width),
                nn.ReLU(),
            ]
            channels = multiple * width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images."""
        logits: torch.Tensor = self.fc(self.pool(self.features(inputs)).flatten(1))
        return logits


def vgg11(*, width: int = 64, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG-11: eight convolutions."""
    return VGG(_VGG11, width=width, num_classes=num_classes, in_channels=in_channels)


def vgg16(*, width: int = 64, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG-16: thirteen convolutions."""
    return VGG(_VGG16, width=width, num_classes=num_classes, in_channels=in_channels)
