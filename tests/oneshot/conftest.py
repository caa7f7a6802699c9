"""Small networks trained on 8 x 8 digits, and how well they do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from edgefolio_pruner.architectures.resnet import ResNet


@dataclass(frozen=True)
class Digits:
    """Digits as [N, 1, 8, 8], values about -1..1; the last 500 are for testing."""

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def calibration(self) -> torch.Tensor:
        return self.images[:512]

    def accuracy(self, module: nn.Module) -> float:
        with torch.no_grad():
            return 100 * float((module.eval()(self.images[-500:]).argmax(1) == self.labels[-500:]).float().mean())


@pytest.fixture(scope="session")
def digits() -> Digits:
    torch.set_num_threads(1)
    raw, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(raw))
    images = torch.from_numpy((raw[order] / 8 - 1).astype(np.float32)).reshape(-1, 1, 8, 8)
    return Digits(images, torch.from_numpy(labels[order]).long())


@pytest.fixture(scope="session")
def trained(digits: Digits) -> Callable[[str], nn.Module]:
    """A trained copy of a network by name; each is trained once."""
    held: dict[str, nn.Module] = {}

    def get(name: str) -> nn.Module:
        if name not in held:
            torch.manual_seed(0)
            held[name] = _train(NETWORKS[name](), digits)
        return copy.deepcopy(held[name])

    return get


def _train(module: nn.Module, digits: Digits) -> nn.Module:
    images, labels = digits.images[:-500], digits.labels[:-500]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    module.train()
    for _ in range(10):
        for batch in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            functional.cross_entropy(module(images[batch]), labels[batch]).backward()
            optimizer.step()
    return module.eval()


def _convolution(inputs: int, outputs: int, **options: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU()]


def _chain() -> nn.Module:
    return nn.Sequential(
        *_convolution(1, 16),
        *_convolution(16, 24),
        nn.MaxPool2d(2),
        *_convolution(24, 32),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def _plain() -> nn.Module:
    """No batch norm; the first reader has a bias, the last has none and no norm, so no offset to move."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10, bias=False),
    )


def _depthwise() -> nn.Module:
    return nn.Sequential(
        *_convolution(1, 16),
        *_convolution(16, 16, groups=16),
        nn.Conv2d(16, 32, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.GELU(), nn.Linear(32, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: ResNet(1, width=8, num_classes=10, in_channels=1),
    "chain": _chain,
    "plain": _plain,
    "depthwise": _depthwise,
    "perceptron": _perceptron,
}
