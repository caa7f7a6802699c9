"""The stages of one seed: train, prune by both ways, shrink and export, measure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from benchmarks.oneshot.even import half_of_every_block
from benchmarks.oneshot.magnitude import magnitude_pruned
from benchmarks.oneshot.settings import HALF_MACS_PERCENT, LADDER
from benchmarks.portfolio.stages import Run

from edgefolio_pruner.spatial import capture, channel_groups

Json = dict[str, Any]

#: Half of the inner channels of every block; the route's selection and refit.
HALF = "oneshot-half"


@dataclass(frozen=True)
class OneShotRun(Run):
    """One seed. Every one-shot variant has a partner by magnitude with as many channels in every block."""

    def result(self) -> Json:
        """Everything measured for this seed; runs what is missing."""
        return {
            "network": self.network.name,
            "seed": self.seed,
            "training": self.stage("training", self.train),
            "oneShot": self._one_shot(),
            "magnitude": self.stage("magnitude", self._prune_by_magnitude),
            "exported": self.stage("export", self.export),
            "accuracy": self.stage("accuracy", lambda: self.measure_accuracy_of(("own",))),
        }

    def names(self) -> tuple[str, ...]:
        """All variants: dense, the one-shot ones, their partners."""
        ours = (HALF, *(f"oneshot-{percent}" for percent in self.settings.macs_percents))
        return ("dense", *ours, *map(partner, ours))

    def _one_shot(self) -> Json:
        return {
            **self.stage("half", self._prune_by_half),
            **self.stage("one-target", lambda: self.prune_to((HALF_MACS_PERCENT,))),
            **self.stage("one-shot", lambda: self.prune_to(LADDER)),
        }

    def _prune_by_half(self) -> Json:
        module = self.dense()
        calibration = torch.from_numpy(self.data.calibration(self.settings.calibration_samples, seed=self.seed))
        started, cpu = time.perf_counter(), time.process_time()
        net, kept = half_of_every_block(module, calibration, seed=self.seed)
        wall, seconds = time.perf_counter() - started, time.process_time() - cpu
        safetensors.torch.save_file(module.state_dict() | net.state, self.state_path(HALF))
        counts = {block: [count, 2 * count] for block, count in kept.items()}
        return {HALF: {"seconds": seconds, "wallSeconds": wall, "kept": counts}}

    def _prune_by_magnitude(self) -> Json:
        module = self.dense()
        groups = channel_groups(capture(module, (torch.from_numpy(self.data.train.images[:2]),)))
        made = {}
        for name, found in self._one_shot().items():
            kept = {block: count for block, (count, _) in found["kept"].items()}
            state = magnitude_pruned(module.state_dict(), groups, kept)
            safetensors.torch.save_file(state, self.state_path(partner(name)))
            made[partner(name)] = {"kept": kept}
        return made


def partner(name: str) -> str:
    """The variant by magnitude that a one-shot variant is compared with."""
    return name.replace("oneshot", "magnitude")
