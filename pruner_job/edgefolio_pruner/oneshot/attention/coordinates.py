"""Heads written in coordinates in which few channels carry nearly all: the same net, easier to prune.

Within a head values may be multiplied by any matrix if the columns that read them are multiplied by its inverse, and
queries likewise if keys are by its inverse transpose. Values are put in the order in which the output of the layer that
reads them depends on them (a singular value decomposition of its columns times the spread of the calibration
samples'); queries and keys are balanced, so that a pair's part in the products is its share of both (Moore 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import fx

from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.network_inputs import Samples, first, pieces
from edgefolio_pruner.oneshot.output_losses import output_losses
from edgefolio_pruner.refit import NotFiniteError
from edgefolio_pruner.spatial import AttentionLayer, HeadSlice

#: Ridge on second moments, relative to their mean diagonal: directions that hardly occur keep a finite inverse.
_RIDGE = 1e-5
#: The weakest pair of a head is taken to be so strong, relative to the strongest, when both factors are balanced.
_WEAKEST = 1e-3
#: Samples that the coordinates are found from: second moments of a few dozen numbers per head.
_SAMPLES = 256
_CHUNK = 32


def in_own_coordinates(
    graph: fx.Graph,
    state: State,
    calibration: Samples,
    maps: Sequence[LinearMap],
    layers: Sequence[AttentionLayer],
    *,
    seed: int,
) -> State:
    """The weights of a net of the same function, up to rounding."""
    chunks = pieces(first(calibration, _SAMPLES), _CHUNK)
    by_weight = {linear.weight: linear for linear in maps}
    usable = [
        layer
        for layer in layers
        if all(part.weight in by_weight for part in (layer.query, layer.key, layer.value, layer.reader))
    ]
    if not usable:
        return state
    losses = output_losses(graph, state, chunks, [by_weight[layer.reader.weight] for layer in usable], seed=seed)
    moments = [_Moments() for _ in usable]
    hold = []
    for layer in usable:
        reader = by_weight[layer.reader.weight]
        hold += [(node, reader.node) for node in (*_written(layer, by_weight), reader.source)]
    for chunk in chunks:
        run = GraphRun(graph, state, [chunk], hold=hold)
        for layer, held in zip(usable, moments, strict=True):
            query, key = _written(layer, by_weight)
            reader = by_weight[layer.reader.weight]
            run.advance(reader.node)
            held.add("query", run.values(query)[0], layer.query, centred=False)
            held.add("key", run.values(key)[0], layer.key, centred=True)
            held.add("heads", run.values(reader.source)[0], layer.reader, centred=False)
    result = dict(state)
    for layer, held in zip(usable, moments, strict=True):
        weights = losses[by_weight[layer.reader.weight].layer]
        weights = weights.clamp_min(weights.max() * 1e-6).sqrt() if weights.max() > 0 else torch.ones_like(weights)
        for head in range(layer.heads):
            change = _balanced(held.of("query", head), held.of("key", head))
            _write_rows(result, layer.query, head, change)
            _write_rows(result, layer.key, head, torch.linalg.inv(change).T)
            columns = state[layer.reader.weight][:, list(layer.reader.indices[head])].double()
            change = _by_weight(columns * weights[:, None], held.of("heads", head))
            _write_rows(result, layer.value, head, change)
            _write_columns(result, layer.reader, head, torch.linalg.inv(change))
    return result


def _written(layer: AttentionLayer, by_weight: Mapping[str, LinearMap]) -> tuple[fx.Node, fx.Node]:
    return by_weight[layer.query.weight].node, by_weight[layer.key.weight].node


class _Moments:
    """Second moments of queries, keys and heads, by head."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._rows: dict[str, int] = {}

    def add(self, what: str, value: torch.Tensor, part: HeadSlice, *, centred: bool) -> None:
        """Add what is written or read for a chunk of samples; ``centred`` within each sample's tokens."""
        tokens = value.double().reshape(len(value), -1, value.shape[-1])
        if centred:
            # What all keys of a sample have in common, softmax does not see.
            tokens = tokens - tokens.mean(1, keepdim=True)
        rows = tokens[..., torch.tensor(part.indices)].flatten(0, 1).transpose(0, 1)
        sums = rows.transpose(1, 2) @ rows
        self._sums[what] = self._sums[what] + sums if what in self._sums else sums
        self._rows[what] = self._rows.get(what, 0) + rows.shape[1]

    def of(self, what: str, head: int) -> torch.Tensor:
        """The second moments [width, width] of one head, with a ridge. Raises :class:`NotFiniteError`."""
        found = self._sums[what][head] / self._rows[what]
        if not bool(torch.isfinite(found).all()):
            raise NotFiniteError(f"{what} of an attention are not finite")
        ridge = _RIDGE * found.diagonal().mean().clamp_min(1e-12)
        return found + ridge * torch.eye(len(found), dtype=torch.float64)


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
