"""The networks of the curves, trained here: how much is lost depends on how much of them is redundant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from edgefolio_pruner.architectures.resnet import resnet8
from edgefolio_pruner.data import DataBundle

RATE, BATCH = 0.05, 128


def mlp() -> nn.Module:
    """784-512-512-512-10."""
    sizes = (784, 512, 512, 512)
    hidden = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


def vgg(width: int) -> nn.Module:
    """Six 3x3 convolutions of width, width, 2, 2, 4 and 4 times width, three pools, one linear layer."""
    layers: list[nn.Module] = []
    channels = 1
    for place, multiple in enumerate((1, 1, 2, 2, 4, 4)):
        layers += [nn.Conv2d(channels, multiple * width, 3, padding=1, bias=False), nn.BatchNorm2d(multiple * width)]
        layers.append(nn.ReLU())
        channels = multiple * width
        if place % 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 9, 10))


#: By name: how a net is made, epochs of training, and the numbers of workers.
NETS: Mapping[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]] = {
    "vgg-narrow": (lambda: vgg(8), 5, (2, 4)),
    "resnet8": (lambda: resnet8(width=32, in_channels=1), 3, (2, 4)),
    "vgg": (lambda: vgg(32), 3, (2, 4)),
    "mlp": (mlp, 5, (2, 4, 6, 8)),
}


def trained(name: str, data: DataBundle, *, seed: int, folder: Path) -> nn.Module:
    """The trained net in evaluation mode; trained once, then read."""
    build, epochs, _ = NETS[name]
    torch.manual_seed(seed)
    net = build()
    path = folder / f"{name}-{seed}-{epochs}.safetensors"
    if path.is_file():
        net.load_state_dict(safetensors.torch.load_file(path))
        return net.eval()
    train(net, data, seed=seed, epochs=epochs)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(net.state_dict(), path)
    return net.eval()


def train(net: nn.Module, data: DataBundle, *, seed: int, epochs: int) -> None:
    """SGD with momentum, one cycle, horizontal flips."""
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            batch = images[chosen]
            flip = torch.rand(len(batch), generator=generator) < 0.5
            batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
            loss = functional.cross_entropy(net(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
