"""Divided networks with owners by chance, and their answer in torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from generated_nets import net_of, samples
from torch import nn

from edgefolio_pruner.spatial import CapturedModel, capture
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.split.channels.ownership import Ownership, contiguous, everything
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.exchanges.points import Divided, depths_of
from edgefolio_pruner.split.shards.writing import rank_module, sums, traffic_of


@cache
def captured_net(*names: str) -> CapturedModel:
    torch.set_num_threads(1)
    return capture(net_of(list(names), 0), (samples(number=2),))


def any_owners(divided: Divided, shares: Sequence[int], seed: int) -> np.ndarray:
    """Owners within the capacities, by chance."""
    generator = np.random.default_rng(seed)
    owner = contiguous(divided, shares)
    for family in divided.families:
        owner[family.units] = generator.permutation(owner[family.units])
    return owner


def any_ownership(divided: Divided, shares: Sequence[int], seed: int, keep: float) -> Ownership:
    generator = np.random.default_rng(seed)
    received = {name: generator.random(mask.shape) < keep for name, mask in everything(divided, len(shares)).items()}
    return Ownership(len(shares), any_owners(divided, shares, seed), received)


def difference(outputs: np.ndarray, module: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        wanted = module(inputs).numpy()
    return float(np.abs(outputs - wanted).max() / np.abs(wanted).max())


def in_torch(captured: CapturedModel, ownership: Ownership, inputs: torch.Tensor) -> np.ndarray:
    """The answer of all workers' parts in torch, exchanges done by hand: quick, for many nets."""
    divided = divide(captured)
    matrices, workers = Matrices(divided.structure.program), range(ownership.workers)
    parts = [rank_module(divided, ownership, worker, matrices=matrices) for worker in workers]
    depths = depths_of(divided, traffic_of(ownership, divided.points))
    held: list[dict[str, torch.Tensor]] = [{} for _ in workers]
    results: list[torch.Tensor] = []
    for _ in range(1 + max(depths.values(), default=0)):
        results = []
        own: dict[str, dict[int, torch.Tensor]] = {}
        for worker, part in enumerate(parts):
            names = [joint.point.name for joint in part.joints if joint.joined is not None]
            # What has not come yet is not a number, and nothing that is right may be made of it.
            shapes = zip(names, part.shapes[1:], strict=True)
            given = [held[worker].get(name, torch.full((len(inputs), *shape), torch.nan)) for name, shape in shapes]
            with torch.no_grad():
                *sent, result = part.module(inputs, *given)
            results.append(result)
            sending = [joint.point.name for joint in part.joints if joint.own is not None]
            for name, value in zip(sending, sent, strict=True):
                own.setdefault(name, {})[worker] = value
        for point in divided.points:
            slots: dict[int, torch.Tensor] = {}
            for worker, value in own.get(point.name, {}).items():
                has = np.flatnonzero(ownership.has(point, worker)).tolist()
                slots.update(zip(has, value.unbind(point.axis), strict=True))
            for worker in workers if slots else ():
                kept = np.flatnonzero(ownership.keeps(point, worker)).tolist()
                if kept:
                    held[worker][point.name] = torch.stack([slots[slot] for slot in kept], point.axis)
    (is_part,) = sums(divided)
    return (sum(results[1:], results[0]) if is_part else results[0]).numpy()
