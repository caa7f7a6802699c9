"""The stages of one seed: train, prune by both ways, shrink and export, measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from benchmarks.oneshot.magnitude import magnitude_pruned
from benchmarks.oneshot.settings import HALF_MACS_PERCENT, LADDER
from benchmarks.portfolio.stages import Run

from edgefolio_pruner.spatial import capture, channel_groups

Json = dict[str, Any]

HALF = f"oneshot-{HALF_MACS_PERCENT}"


@dataclass(frozen=True)
class OneShotRun(Run):
    """One seed. Every one-shot variant has a partner by magnitude with as many channels in every block.

    The partner of :data:`HALF` keeps half of the inner channels of every block.
    """

    def result(self) -> Json:
        """Everything measured for this seed; runs what is missing."""
        return {
            "network": self.network.name,
            "seed": self.seed,
            "training": self.stage("training", self.train),
            "oneShot": self.stage("half", lambda: self.prune_to((HALF_MACS_PERCENT,)))
            | self.stage("one-shot", lambda: self.prune_to(LADDER)),
            "magnitude": self.stage("magnitude", self._prune_by_magnitude),
            "exported": self.stage("export", self.export),
            "accuracy": self.stage("accuracy", lambda: self.measure_accuracy_of(("own",))),
        }

    def names(self) -> tuple[str, ...]:
        """All variants: dense, the one-shot targets, their partners."""
        ours = tuple(f"oneshot-{percent}" for percent in self.settings.macs_percents)
        return ("dense", *ours, *map(partner, ours))

    def _prune_by_magnitude(self) -> Json:
        module = self.dense()
        captured = capture(module, (torch.from_numpy(self.data.train.images[:2]),))
        groups = channel_groups(captured)
        ours = self.stage("one-shot", lambda: self.prune_to(LADDER))
        counts = {name: {group: kept for group, (kept, _) in found["kept"].items()} for name, found in ours.items()}
        inner = next(iter(ours.values()))["kept"]
        counts[HALF] = {group: before // 2 for group, (_, before) in inner.items()}
        for name, kept in counts.items():
            state = magnitude_pruned(module.state_dict(), groups, kept)
            safetensors.torch.save_file(state, self.state_path(partner(name)))
        return {partner(name): {"kept": kept} for name, kept in counts.items()}


def partner(name: str) -> str:
    """The variant by magnitude that a one-shot variant is compared with."""
    return name.replace("oneshot", "magnitude")
