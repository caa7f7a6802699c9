"""Classifiers of rows, signals and volumes, trained from scratch; augmentation is of pictures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import task_nets
import torch
from task_nets import portfolio
from torch import nn

from edgefolio.repository import Repository
from edgefolio_pruner.data import Split
from edgefolio_pruner.pipeline import make_portfolio
from edgefolio_pruner.training.batches import Batches

SHAPES = {"rows": (20,), "signals": (2, 40), "volumes": (1, 4, 6, 6)}


def rows() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 16, 5),
        nn.ReLU(),
        nn.Conv1d(16, 16, 5),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(12, 12, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 144, 3),
    )


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_networks_of_any_samples_are_trained(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_nets, kind, {"rows": rows, "signals": signals, "volumes": volumes}[kind], raising=False)
    random = np.random.default_rng(0)
    labels = np.arange(240) % 3
    kinds = random.normal(size=(3, *SHAPES[kind]))
    np.savez(
        tmp_path / "data.npz",
        x=(2 * kinds[labels] + random.normal(size=(240, *SHAPES[kind])) / 2).astype(np.float32),
        y=labels,
    )
    training = {"denseEpochs": 10, "levels": 1, "batchSize": 32, "learningRate": "0.02"}
    document: Any = portfolio("Classification", tmp_path, methods={"sparseTraining": training}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["spec"]["source"] = {"architecture": {"library": "factory", "name": f"task_nets:{kind}"}}
    result = make_portfolio(
        type(portfolio("Classification", tmp_path)).model_validate(document),
        work_directory=tmp_path / "work",
        threads=1,
    )
    assert result.manifest.signature.inputs[0].shape == SHAPES[kind]
    assert max(variant.test_accuracy.percent for variant in result.manifest.variants) > 60
    assert Repository.open(str(tmp_path / "portfolios"), field="f").models() == ("own",)


def test_only_pictures_are_mirrored() -> None:
    images = np.arange(60, dtype=np.float32).reshape(10, 6)
    batches = Batches(
        Split(images=images, labels=np.zeros(10, dtype=np.int64), digest="0" * 64),
        batch_size=10,
        augmentation="FlipCrop",
        seed=0,
    )
    found, _ = batches.batch(epoch=0, position=0)
    assert torch.equal(found.sort(dim=0).values, torch.from_numpy(images))
