"""A pruned network trained from random weights, alone, until it is as accurate as the pruned one or stands still."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from benchmarks.over_seeds import say
from benchmarks.variants.bench import Bench
from benchmarks.variants.training.standstill import RULE, cache_folder, finished, recipe, to_standstill
from torch import nn

from edgefolio_pruner.spatial import capture, compress

Json = dict[str, Any]
_TRAINING_ARGUMENT = 5


class Trainable(nn.Module):
    """A pruned graph whose batch norms follow ``train()`` and ``eval()``; captured, they were fixed to evaluation."""

    def __init__(self, graph_module: torch.fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph_module.requires_grad_(True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        logits: torch.Tensor = self.graph_module(inputs)
        return logits

    def train(self, mode: bool = True) -> Trainable:
        """Set the mode of every batch norm."""
        super().train(mode)
        for node in self.graph_module.graph.nodes:
            if node.target is torch.ops.aten.batch_norm.default:
                node.update_arg(_TRAINING_ARGUMENT, mode)
        self.graph_module.recompile()
        return self

    def restart(self, *, seed: int) -> Trainable:
        """Random weights: He's for what has two axes or more, batch norms as new."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if value.ndim > 1:
                    nn.init.kaiming_normal_(value, mode="fan_out", nonlinearity="relu", generator=generator)
                else:
                    value.fill_(0.0 if name.endswith("bias") else 1.0)
            for name, value in self.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    value.fill_(0.0 if name.endswith("mean") else 1.0)
        return self


def trained_alone(bench: Bench, record: Json, state: Path, target: float) -> Json:
    """Processor seconds, epochs and best validation accuracy of training the variant's network alone."""
    module = bench.dense()
    module.load_state_dict(safetensors.torch.load_file(state))
    net = Trainable(compress(capture(module, bench.example)).module).restart(seed=bench.seed)
    key = recipe(bench.net, bench.seed) | {"kept": record["kept"], "target": target}
    folder = cache_folder() / bench.name / f"alone-{bench.seed}"
    found = finished(folder, key)
    if found is None:
        started = time.perf_counter()
        found = to_standstill(
            net,
            bench.net,
            bench.data,
            seed=bench.seed,
            folder=folder,
            key=key,
            report=lambda standing, accuracy, _: say(
                f"{bench.name}, seed {bench.seed}: alone, epoch {standing.epoch}, {accuracy:.2f} % of {target:.2f} %"
            ),
            rule=RULE,
            enough=target,
        )
        say(f"{bench.name}, seed {bench.seed}: trained alone in {time.perf_counter() - started:.0f} s")
    standing = found.record["standing"]
    return {
        "seconds": found.record["seconds"],
        "best": standing["best"],
        "epochs": standing["epoch"],
        "reached": standing["best"] >= target,
    }
