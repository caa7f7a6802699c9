"""Weight masks by parameter name, and global magnitude pruning (Han et al. 2015).

A mask is a boolean tensor of its parameter's shape; a parameter without one is kept whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.training.result import MaskSummary

Masks = dict[str, torch.Tensor]

_PRUNABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def prunable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all convolutions and linear layers, by their name in the state dict; shared ones once.

    Raises :class:`UserError` if there are none.
    """
    owners = {id(layer.weight) for layer in module.modules() if isinstance(layer, _PRUNABLE)}
    found = {name: parameter for name, parameter in module.named_parameters() if id(parameter) in owners}
    if not found:
        raise UserError(
            "the model has no prunable layer (convolution or linear).",
            field="spec.source.architecture",
            value=type(module).__name__,
            remedy="Name a model with convolutions or linear layers.",
        )
    return found


def full_masks(module: nn.Module) -> Masks:
    """Masks that keep every prunable weight of ``module``."""
    return {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in prunable_parameters(module).items()}


def kept_weights(masks: Mapping[str, torch.Tensor], prunable: Mapping[str, torch.Tensor]) -> int:
    """Number of prunable weights that ``masks`` keep."""
    return sum(int(masks[name].sum()) for name in prunable)


def target_of(kept: int, prune_percent: int) -> int:
    """How many of ``kept`` weights a level that drops ``prune_percent`` keeps; at least 1."""
    return max(1, kept - math.floor(kept * prune_percent / 100))


def prune_by_magnitude(masks: Masks, prunable: Mapping[str, torch.Tensor], *, target: int) -> Masks:
    """Drop the smallest kept weights of the whole network until ``target`` are left; other masks stay as they are.

    One threshold for all layers; equal magnitudes go in the order of names and positions.
    """
    names = sorted(prunable)
    magnitudes = torch.cat([prunable[name].detach().abs().reshape(-1).contiguous() for name in names])
    kept = torch.cat([masks[name].reshape(-1) for name in names])
    drop = int(kept.sum()) - target
    result = dict(masks)
    if drop <= 0:
        return result
    magnitudes[~kept] = math.inf
    kept[magnitudes.sort(stable=True).indices[:drop]] = False
    start = 0
    for name in names:
        end = start + prunable[name].numel()
        result[name] = kept[start:end].reshape(prunable[name].shape).clone()
        start = end
    return result


def apply_masks(module: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Set every masked value of ``module`` to exactly zero."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask, 0.0)


def summary_of(masks: Mapping[str, torch.Tensor]) -> tuple[MaskSummary, ...]:
    """Kept and total values of each masked parameter, by name."""
    return tuple(
        MaskSummary(parameter=name, kept=int(mask.sum()), total=mask.numel()) for name, mask in sorted(masks.items())
    )
