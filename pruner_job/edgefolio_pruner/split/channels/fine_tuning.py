"""Fine-tuning: gradient steps with masks, towards the dense model's outputs, so that labels are never read.

Weights that a worker lacks the input of are zero and stay so bit by bit: their gradients are zeroed in front of each
step, so that neither its two moments nor the step itself ever moves them. Statistics of batch norms stay the dense
model's. Equal inputs and threads give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.channels.ownership import Ownership, masked
from edgefolio_pruner.split.channels.statistics import State
from edgefolio_pruner.split.exchanges.points import Divided

__all__ = ["Tuning", "fine_tune"]

_BATCH = 64
_RATE = 1e-3
_STAGE = "split"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How often the samples are gone through; ``read`` gives those of these places, float32 [places, ...]."""

    epochs: int
    samples: int
    read: Callable[[list[int]], torch.Tensor]


def fine_tune(
    divided: Divided,
    body: CapturedModel,
    state: Mapping[str, torch.Tensor],
    ownership: Ownership,
    tuning: Tuning,
    *,
    before: Callable[[torch.Tensor], torch.Tensor],
    seed: int,
    progress: Progress = no_progress,
) -> State:
    """The weights after ``epochs``, Adam with a cosine to zero, squared error as a part of the dense outputs' variance.

    ``before`` computes what the divided part ``body``, which has the dense weights, reads.
    """
    dense = body.graph_module
    student = body.with_state({name: tensor.clone() for name, tensor in state.items()}).graph_module
    weights = {name: value for name, value in student.named_parameters() if value.is_floating_point()}
    ones = {name: torch.ones_like(value) for name, value in student.state_dict().items()}
    masks = {name: mask for name, mask in masked(divided, ownership, ones).items() if name in weights}
    lacking = [(weights[name], mask) for name, mask in masks.items() if not bool(mask.all())]
    for value in weights.values():
        value.requires_grad_(True)
    optimizer = torch.optim.Adam(weights.values(), lr=_RATE)
    batches = max(1, tuning.samples // _BATCH)
    generator = torch.Generator().manual_seed(seed)
    done, steps = 0, tuning.epochs * batches
    for epoch in range(tuning.epochs):
        progress(stage=_STAGE, fraction=epoch / tuning.epochs, message=f"fine-tuning, epoch {epoch + 1}")
        order = torch.randperm(tuning.samples, generator=generator).tolist()
        for number in range(batches):
            optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * done / steps)) / 2
            with torch.no_grad():
                inputs = before(tuning.read(order[number * _BATCH : (number + 1) * _BATCH]))
                wanted = _outputs(dense(inputs))
            with torch.enable_grad():
                loss = _loss(_outputs(student(inputs)), wanted)
                optimizer.zero_grad(set_to_none=False)
                loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for value, mask in lacking:
                    if value.grad is not None:
                        value.grad.mul_(mask)
            optimizer.step()
            done += 1
    result = {name: value.detach().clone() for name, value in student.state_dict().items()}
    if not all(bool(torch.isfinite(value).all()) for value in result.values() if value.is_floating_point()):
        # Steps that lead nowhere are not taken.
        return dict(state)
    return {**state, **result}


def _outputs(found: object) -> list[torch.Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(found)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _loss(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> torch.Tensor:
    parts = []
    for mine, target in zip(found, wanted, strict=True):
        spread = target.var(0, unbiased=False).mean().clamp_min(torch.finfo(target.dtype).tiny)
        parts.append((mine - target).square().mean() / spread)
    return torch.stack(parts).sum()
