"""Torch-Pruning (DepGraph, PyPI ``torch-pruning``): one structured pruning to a number of multiply-accumulates."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from edgefolio_pruner.spatial.graph.macs import count_macs

_HALVINGS = 9
#: A ratio whose net has this share more than the wanted multiply-accumulates ends the search.
_CLOSE = 0.01


@dataclass(frozen=True)
class Criterion:
    """How Torch-Pruning ranks channels: its importance, what ``.grad`` must hold for it, and over what it ranks."""

    importance: Literal["magnitude", "taylor", "hessian"]
    over: Literal["layer", "net", "isomorphic groups"]

    @property
    def gradients(self) -> Literal["none", "mean", "squared"]:
        """``squared``: the mean of the squared gradients of single samples."""
        if self.importance == "magnitude":
            return "none"
        return "mean" if self.importance == "taylor" else "squared"


CRITERIA: Mapping[str, Criterion] = {
    "magnitude per layer": Criterion("magnitude", "layer"),
    "magnitude": Criterion("magnitude", "net"),
    "Taylor": Criterion("taylor", "net"),
    "Hessian": Criterion("hessian", "net"),
    "isomorphic magnitude": Criterion("magnitude", "isomorphic groups"),
    "isomorphic Taylor": Criterion("taylor", "isomorphic groups"),
}


def gradients(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, squared: bool) -> list[torch.Tensor]:
    """Per parameter the gradient of the mean loss, or the mean of the squared gradients of single samples.

    Torch-Pruning 1.6.1 keeps only the last sample's where it adds them up itself (``accumulate_grad`` looks for names
    among parameters), so that its Hessian criterion is given the mean here.
    """
    module = copy.deepcopy(module).eval()
    sums = [torch.zeros_like(parameter) for parameter in module.parameters()]
    size = 1 if squared else 64
    for start in range(0, len(images), size):
        module.zero_grad(set_to_none=True)
        logits = module(images[start : start + size])
        loss = nn.functional.cross_entropy(logits, labels[start : start + size], reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        for total, parameter in zip(sums, module.parameters(), strict=True):
            if parameter.grad is not None:
                total += parameter.grad.square() if squared else parameter.grad
    return [total / len(images) for total in sums]


def prune(
    module: nn.Module,
    criterion: Criterion,
    *,
    example: torch.Tensor,
    macs: int,
    given: list[torch.Tensor] | None,
) -> tuple[nn.Module, int]:
    """The net by the least pruning ratio that leaves about ``macs``, and what it leaves: as near from above as found.

    The ratio is found by bisection; of two nets the one with more multiply-accumulates is given, in the peer's favour.
    """
    shape = (tuple(example.shape[1:]),)
    low, high = 0.0, 0.98
    above: tuple[nn.Module, int] | None = None
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        pruned = _pruned(module, criterion, ratio=ratio, example=example, given=given)
        left = count_macs(pruned, shape)
        if left >= macs:
            low, above = ratio, (pruned, left)
            if left <= macs * (1 + _CLOSE):
                break
        else:
            high = ratio
    assert above is not None
    return above


def _pruned(
    module: nn.Module, criterion: Criterion, *, ratio: float, example: torch.Tensor, given: list[torch.Tensor] | None
) -> nn.Module:
    import torch_pruning

    module = copy.deepcopy(module).eval()
    if given is not None:
        for parameter, gradient in zip(module.parameters(), given, strict=True):
            parameter.grad = gradient.clone()
    importances: Any = torch_pruning.importance
    importance = {
        "magnitude": importances.GroupMagnitudeImportance,
        "taylor": importances.GroupTaylorImportance,
        "hessian": importances.GroupHessianImportance,
    }[criterion.importance]()
    classifier = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner: Any = torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=importance,
            global_pruning=criterion.over != "layer",
            isomorphic=criterion.over == "isomorphic groups",
            pruning_ratio=ratio,
            ignored_layers=[classifier],
        )
        pruner.step()
    module.zero_grad(set_to_none=True)
    return module
