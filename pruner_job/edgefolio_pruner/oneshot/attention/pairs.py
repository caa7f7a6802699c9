"""What leaving out a pair of queries and keys costs, one of each head at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import fx

from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.network_inputs import Samples, count, pieces
from edgefolio_pruner.oneshot.output_losses import drawn_objective, forward_values, samples_per_pass, with_gradients
from edgefolio_pruner.oneshot.prunable_groups import PrunableGroup
from edgefolio_pruner.refit import Elimination
from edgefolio_pruner.spatial import AttentionLayer

#: Units of a loss: that at the net's output, or the variance of the map's own output.
Unit = Literal["output", "own"]
UNITS: tuple[Unit, ...] = ("output", "own")


def pair_losses(
    graph: fx.Graph,
    state: State,
    chunks: Sequence[Samples],
    maps: Sequence[LinearMap],
    groups: Sequence[PrunableGroup],
    *,
    seed: int,
) -> dict[PrunableGroup, Mapping[Unit, torch.Tensor]]:
    """Per group and unit the loss [pairs] of leaving out each pair.

    At the net's output: the mean square of query times gradient, summed over the tokens, which is what a step to zero
    does to a log probability, to first order. In its own unit: the pair's part of the square of all products of a head
    (without what all keys have in common), averaged over the heads.
    """
    if not groups:
        return {}
    by_weight = {linear.weight: linear.node for linear in maps}
    generator = torch.Generator().manual_seed(seed)
    at_output = {group: torch.zeros(group.channels, dtype=torch.float64) for group in groups}
    shares = {group: torch.zeros(group.channels, dtype=torch.float64) for group in groups}
    samples = 0
    per_pass = samples_per_pass(graph)
    for chunk in (part for whole in chunks for part in pieces(whole, per_pass)):
        with torch.enable_grad():
            values = forward_values(graph, state, with_gradients(chunk))
            ends = [values[by_weight[_attention(group).query.weight]] for group in groups]
            gradients = torch.autograd.grad(drawn_objective(values, graph, generator), ends, allow_unused=True)
        for group, end, gradient in zip(groups, ends, gradients, strict=True):
            layer = _attention(group)
            places = [_by_pair(group, part.weight, part.indices) for part in (layer.query, layer.key)]
            query = _tokens(end, places[0])
            key = _tokens(values[by_weight[layer.key.weight]], places[1])
            if gradient is not None:
                moved = (query * _tokens(gradient, places[0])).sum(1)
                at_output[group] += moved.square().sum((0, 1))
            key = key - key.mean(1, keepdim=True)
            alone = query.square().sum(1) * key.square().sum(1)
            grams = [torch.einsum("nthi,nthj->nhij", part, part) for part in (query, key)]
            whole = (grams[0] * grams[1]).sum((2, 3), keepdim=True)[..., 0]
            shares[group] += (alone / whole.clamp_min(1e-30)).mean(1).sum(0)
        samples += count(chunk)
    return {group: {"output": at_output[group] / samples, "own": shares[group] / samples} for group in groups}


def least_first(losses: torch.Tensor, *, least: int) -> Elimination:
    """An order of elimination by fixed losses, down to ``least``."""
    order = torch.argsort(losses, stable=True)[: len(losses) - least].tolist()
    return Elimination(order=tuple(order), increases=tuple(float(losses[index]) for index in order), exact=True)


def _attention(group: PrunableGroup) -> AttentionLayer:
    assert group.attention is not None
    return group.attention


def _by_pair(group: PrunableGroup, weight: str, heads: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows [heads, pairs] of ``weight`` in the order of the group's channels."""
    channel = {
        (part.parameter, row): number
        for part in group.group.writers
        if part.axis == 0
        for number, rows in enumerate(part.indices)
        for row in rows
    }
    return torch.tensor([sorted(rows, key=lambda row: channel[weight, row]) for rows in heads])


def _tokens(value: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[samples, tokens, heads, pairs], float64."""
    return value.detach().double().reshape(len(value), -1, value.shape[-1])[..., places]
