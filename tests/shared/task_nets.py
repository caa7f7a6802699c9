"""Small networks of every task, their data, and their weights, trained in a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from edgefolio.specification import ModelPortfolio

Arrays = dict[str, Any]


def table_net() -> nn.Module:
    """Three numbers from rows of 12."""
    return nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 3))


class Signal(nn.Module):
    """Four labels from a signal in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 24, 5, padding=2), nn.BatchNorm1d(24), nn.ReLU(), nn.Conv1d(24, 24, 5, 2, 2), nn.ReLU()
        )
        self.head = nn.Linear(24, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(signal).amax(2))


class Unet(nn.Module):
    """Three classes of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.down(image)
        return self.out(torch.cat([first, self.up(self.deep(first))], 1))


class TwoHeads(nn.Module):
    """Logits and features, as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(24, 4)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(image).mean((2, 3))
        return {"logits": self.head(features), "features": features}


class TwoInputs(nn.Module):
    """Logits of a picture and a few numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(12, 4)

    def forward(self, image: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.body(image).mean((2, 3)), numbers], 1))


def table(samples: int = 400) -> Arrays:
    random = np.random.default_rng(0)
    rows = random.normal(size=(samples, 12)).astype(np.float32) * 3 + 1
    mixed = random.normal(size=(12, 3)) / 4
    return {"x": rows, "y": (np.sin(rows @ mixed) * 5 + 2).astype(np.float32)}


def signals(samples: int = 400) -> Arrays:
    random = np.random.default_rng(0)
    labels = (random.random((samples, 4)) < 0.4).astype(np.int64)
    time = np.linspace(0, 1, 64)
    tones = np.stack([np.sin(2 * np.pi * frequency * time) for frequency in (3, 7, 13, 25)])
    return {"x": (labels @ tones + random.normal(0, 0.3, (samples, 64))).astype(np.float32), "labels": labels}


def masks(samples: int = 160) -> Arrays:
    random = np.random.default_rng(0)
    truth = np.zeros((samples, 16, 16), dtype=np.uint8)
    for mask in truth:
        for number in (1, 2):
            top, left = random.integers(0, 10, 2)
            mask[top : top + 6, left : left + 6] = number
    pictures = (truth * 90 + random.normal(0, 12, truth.shape) + 20).clip(0, 255).astype(np.uint8)
    truth[:, 0] = 255  # a row that does not count
    return {"images": pictures[:, None], "masks": truth}


def pictures(samples: int = 400) -> Arrays:
    random = np.random.default_rng(0)
    labels = np.arange(samples) % 4
    shapes = random.normal(size=(4, 3, 8, 8))
    images = shapes[labels] * 40 + random.normal(0, 20, (samples, 3, 8, 8)) + 128
    return {"x": images.clip(0, 255).astype(np.uint8), "y": labels}


def trained(
    build: Callable[[], nn.Module], inputs: Any, targets: Any, loss: Callable[..., Any], steps: int
) -> nn.Module:
    """The network after so many steps on samples that are normalized as a pruning run does it."""
    torch.manual_seed(0)
    module = build().train()
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for step in range(steps):
        chosen = torch.from_numpy(np.random.default_rng(step).permutation(len(inputs))[:64])
        found = module(inputs[chosen])
        value = loss(found["logits"] if isinstance(found, dict) else found, targets[chosen])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return module.eval()


def normalized(values: Any) -> torch.Tensor:
    array = np.asarray(values, dtype=np.float64) / (255 if values.dtype == np.uint8 else 1)
    axes = (0, *range(2, array.ndim))
    mean, deviation = array.mean(axis=axes, keepdims=True), array.std(axis=axes, keepdims=True)
    return torch.from_numpy(((array - mean) / deviation).astype(np.float32))


def _segmentation_loss(found: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(found, masks, ignore_index=255)


#: Network, data, how samples and targets are called, loss, steps.
TASKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Arrays], tuple[str, str], Callable[..., Any], int]] = {
    "Regression": (table_net, table, ("x", "y"), nn.functional.mse_loss, 400),
    "MultiLabel": (Signal, signals, ("x", "labels"), nn.functional.binary_cross_entropy_with_logits, 120),
    "Segmentation": (Unet, masks, ("images", "masks"), _segmentation_loss, 60),
    "Classification": (TwoHeads, pictures, ("x", "y"), nn.functional.cross_entropy, 80),
}
FACTORIES = {
    "Regression": "task_nets:table_net",
    "MultiLabel": "task_nets:Signal",
    "Segmentation": "task_nets:Unet",
    "Classification": "task_nets:TwoHeads",
}


def prepared(task: str, folder: Path) -> None:
    """``data.npz`` and ``weights.safetensors`` of a trained network in ``folder``."""
    build, make, (samples, targets), loss, steps = TASKS[task]
    arrays = make()
    inputs = normalized(arrays[samples])
    if task == "MultiLabel":
        # The signal is one channel: one mean for all of it.
        inputs = normalized(arrays[samples][:, None])
    wanted = torch.from_numpy(arrays[targets])
    wanted = wanted.float() if task in ("Regression", "MultiLabel") else wanted.long()
    module = trained(build, inputs, wanted, loss, steps)
    np.savez(folder / "data.npz", **arrays)
    safetensors.torch.save_file(module.state_dict(), folder / "weights.safetensors")


def portfolio(task: str, folder: Path, **changes: Any) -> ModelPortfolio:
    """One-shot pruning of the network in ``folder``; ``changes`` are of ``data``, or by the name of their part."""
    spec: dict[str, Any] = {
        "source": {
            "architecture": {"library": "factory", "name": FACTORIES[task]},
            "weightsURI": str(folder / "weights.safetensors"),
        },
        "data": {"trainingURI": str(folder / "data.npz"), "calibrationSamples": 128, "task": task},
        "methods": {"oneShot": {"macsPercent": [50]}},
        "selection": {"accuracyEpsilonPoints": "0", "latencyEpsilonPercent": "0", "memoryEpsilonPercent": "0"},
        "profiling": {"samples": 20, "rounds": 2},
        "repository": {"uri": str(folder / "portfolios")},
        "serving": {"modelName": "own"},
    }
    for name, change in changes.items():
        if name == "methods":
            spec[name] = change
        elif name in spec:
            spec[name] = {**spec[name], **change}
        else:
            spec["data"][name] = change
    return ModelPortfolio.model_validate(
        {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "own"}, "spec": spec}
    )
