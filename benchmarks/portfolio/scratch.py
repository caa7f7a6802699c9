"""How long one optimizer step of each variant takes: the base for the time of training it from scratch."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from edgefolio_pruner.training.determinism import fastest_precision

WARM_UP = 3


def step_seconds(
    modules: Mapping[str, nn.Module], images: torch.Tensor, labels: torch.Tensor, *, steps: int, threads: int
) -> dict[str, list[float]]:
    """Processor seconds of forward, backward and update per step and module, interleaved.

    The modules are shrunk networks; their batch norms use their stored statistics, which is a little cheaper than
    training's. Only ratios between modules are used.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for module in modules.values():
        module.requires_grad_(True)
    optimizers = {name: torch.optim.SGD(module.parameters(), lr=1e-6) for name, module in modules.items()}
    times: dict[str, list[float]] = {name: [] for name in modules}
    images = images.contiguous(memory_format=torch.channels_last)
    try:
        for turn in range(-WARM_UP, steps):
            for name, module in modules.items():
                started = time.process_time()
                with torch.autocast("cpu", torch.bfloat16, enabled=fastest_precision() == "bfloat16"):
                    logits = module(images)
                functional.cross_entropy(logits.float(), labels).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
                if turn >= 0:
                    times[name].append(time.process_time() - started)
    finally:
        torch.set_num_threads(before)
    return times
