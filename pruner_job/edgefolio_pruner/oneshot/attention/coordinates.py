"""Heads written in coordinates in which few channels carry nearly all: the same net, easier to prune.

Within a head values may be multiplied by any matrix if the columns that read them are multiplied by its inverse, and
queries likewise if keys are by its inverse transpose. Values are put in the order in which the output of the layer that
reads them depends on them (a singular value decomposition of its columns times the spread of the calibration
samples'); queries and keys are balanced, so that a pair's part in the products is its share of both (Moore 1981).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.oneshot.output_losses import output_losses
from edgefolio_pruner.spatial import AttentionLayer, HeadSlice

#: Ridge on second moments, relative to their mean diagonal: directions that hardly occur keep a finite inverse.
_RIDGE = 1e-5
#: The weakest pair of a head is taken to be so strong, relative to the strongest, when both factors are balanced.
_WEAKEST = 1e-3
#: Samples that the coordinates are found from: second moments of a few dozen numbers per head.
_SAMPLES = 256
_CHUNK = 64


def in_own_coordinates(
    graph: fx.Graph,
    state: State,
    calibration: torch.Tensor,
    maps: Sequence[LinearMap],
    layers: Sequence[AttentionLayer],
    *,
    seed: int,
) -> State:
    """The weights of a net of the same function, up to rounding."""
    chunks = list(torch.split(calibration[:_SAMPLES], _CHUNK))
    by_weight = {linear.weight: linear for linear in maps}
    usable = [
        layer
        for layer in layers
        if all(part.weight in by_weight for part in (layer.query, layer.key, layer.value, layer.reader))
    ]
    if not usable:
        return state
    losses = output_losses(graph, state, chunks, [by_weight[layer.reader.weight] for layer in usable], seed=seed)
    read = {by_weight[layer.reader.weight] for layer in usable}
    written = {by_weight[part.weight] for layer in usable for part in (layer.query, layer.key)}
    hold = [(linear.source, linear.node) for linear in read] + [(linear.node, linear.node) for linear in written]
    run = GraphRun(graph, state, chunks, hold=hold)
    result = dict(state)
    for layer in usable:
        query, key = by_weight[layer.query.weight], by_weight[layer.key.weight]
        for node in (query.node, key.node):
            run.advance(node)
        queries = _moments(run.values(query.node), layer.query, centred=False)
        keys = _moments(run.values(key.node), layer.key, centred=True)
        reader = by_weight[layer.reader.weight]
        run.advance(reader.node)
        heads = _moments(run.values(reader.source), layer.reader, centred=False)
        weights = losses[reader.layer].clamp_min(losses[reader.layer].max() * 1e-6).sqrt()
        for head in range(layer.heads):
            change = _balanced(queries[head], keys[head])
            _write_rows(result, layer.query, head, change)
            _write_rows(result, layer.key, head, torch.linalg.inv(change).T)
            columns = state[layer.reader.weight][:, list(layer.reader.indices[head])].double()
            change = _by_weight(columns * weights[:, None] if weights.max() > 0 else columns, heads[head])
            _write_rows(result, layer.value, head, change)
            _write_columns(result, layer.reader, head, torch.linalg.inv(change))
    return result


def _moments(values: Sequence[torch.Tensor], part: HeadSlice, *, centred: bool) -> torch.Tensor:
    """Second moments [heads, width, width] of what is written or read; ``centred`` within each sample's tokens."""
    index = torch.tensor(part.indices)
    total = torch.zeros(len(index), index.shape[1], index.shape[1], dtype=torch.float64)
    rows = 0
    for value in values:
        tokens = value.double().reshape(len(value), -1, value.shape[-1])
        if centred:
            # What all keys of a sample have in common, softmax does not see.
            tokens = tokens - tokens.mean(1, keepdim=True)
        flat = tokens[..., index].flatten(0, 1).transpose(0, 1)
        total += flat.transpose(1, 2) @ flat
        rows += flat.shape[1]
    total /= max(1, rows)
    ridge = _RIDGE * total.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return total + ridge[:, None, None] * torch.eye(index.shape[1], dtype=torch.float64)


def _balanced(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The matrix for queries after which both have the same diagonal moments, the strongest pair first."""
    lower, other = torch.linalg.cholesky(query), torch.linalg.cholesky(key)
    left, strength, _ = torch.linalg.svd(lower.T @ other)
    root = strength.clamp_min(_WEAKEST * strength[0]).sqrt()
    change: torch.Tensor = root[:, None] * (left.T @ torch.linalg.inv(lower))
    return change


def _by_weight(columns: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """The matrix for values after which the first channels matter most to the columns that read them."""
    lower = torch.linalg.cholesky(moments)
    _, _, right = torch.linalg.svd(columns @ lower, full_matrices=True)
    size = moments.diagonal().mean().sqrt()
    change: torch.Tensor = size * right @ torch.linalg.inv(lower)
    return change


def _write_rows(state: State, part: HeadSlice, head: int, change: torch.Tensor) -> None:
    rows = list(part.indices[head])
    weight = state[part.weight].clone()
    weight[rows] = (change @ weight[rows].double()).to(weight.dtype)
    state[part.weight] = weight
    if part.bias is not None:
        bias = state[part.bias].clone()
        bias[rows] = (change @ bias[rows].double()).to(bias.dtype)
        state[part.bias] = bias


def _write_columns(state: State, part: HeadSlice, head: int, change: torch.Tensor) -> None:
    columns = list(part.indices[head])
    weight = state[part.weight].clone()
    weight[:, columns] = (weight[:, columns].double() @ change).to(weight.dtype)
    state[part.weight] = weight
