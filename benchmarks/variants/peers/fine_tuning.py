"""One epoch of training after pruning, the same for every method."""

from __future__ import annotations

import copy

import torch
from benchmarks.variants.nets import Net
from benchmarks.variants.training.standstill import BATCH, settings_of
from torch import nn

from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.training.batches import Batches
from edgefolio_pruner.training.determinism import reproducible
from edgefolio_pruner.training.trainer import LevelSchedule, LevelTrainer, Position

#: Peak of the one-cycle schedule, as a part of the rate that the dense training began with.
RATE_SHARE = 0.4


def fine_tuned(
    module: nn.Module, net: Net, data: DataBundle, *, seed: int, masks: dict[str, torch.Tensor] | None = None
) -> nn.Module:
    """A copy after one epoch over the training images, one cycle; weights that ``masks`` hold at zero stay there."""
    module = copy.deepcopy(module)
    settings = settings_of(net).model_copy(update={"schedule": "OneCycle"})
    batches = Batches(data.train, batch_size=BATCH, augmentation=net.augmentation, seed=seed)
    schedule = LevelSchedule(
        level=1, first_step=0, steps=batches.per_epoch, first_epoch=1000, peak_rate=net.rate * RATE_SHARE
    )
    with reproducible(threads=1):
        LevelTrainer(module, masks or {}, settings, net.precision).run(
            batches,
            schedule,
            seed=seed,
            start=Position(step=0, seconds=0.0, loss=0.0),
            until=batches.per_epoch,
            on_pause=lambda _: None,
            on_report=lambda _: None,
            checkpoint_seconds=float("inf"),
        )
    return module.eval()
