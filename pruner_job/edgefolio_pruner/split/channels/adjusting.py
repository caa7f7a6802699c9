"""Adjustment: what remains is re-fitted layer by layer, so that each worker does without what it no longer gets.

The modified network runs beside the dense one (a cascade): each layer is fitted to the dense network's values on the
modified network's inputs, each worker's outputs on the columns that it has, so that layers repair what earlier ones
lost. In front of a ReLU only positive values must be met; one more pass fits those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgefolio_pruner.calibrating.calibration import (
    KeptChannels,
    calibration_rows,
    collect_moments,
    write_refit,
)
from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import LinearMap, linear_maps
from edgefolio_pruner.refit import GRAM_COLUMNS, Refit, ScaleAccumulator, SplitMoments, refit_columns
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.channels.ownership import Ownership, masked
from edgefolio_pruner.split.channels.statistics import State
from edgefolio_pruner.split.exchanges.points import Divided

__all__ = ["Adjusted", "LayerResidual", "adjust"]

aten = torch.ops.aten
#: Widest layer that is re-fitted though it lacks nothing; beyond, the cost exceeds the gain.
_WIDEST_REPAIR = 2304


@dataclass(frozen=True)
class LayerResidual:
    """Error of a layer's output on held-out samples as a part of its variance; ``method`` as in a refit."""

    layer: str
    relative_error: float
    rows: int
    method: str


@dataclass(frozen=True, eq=False)
class Adjusted:
    """The weights, with zeros where workers lack the input, and what each layer that was fitted is off by."""

    state: State
    residuals: tuple[LayerResidual, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """Outputs of a layer that one worker owns, and the columns that it has."""

    outputs: torch.Tensor
    columns: torch.Tensor


def adjust(
    divided: Divided,
    captured: CapturedModel,
    ownership: Ownership,
    chunks: Sequence[torch.Tensor],
    *,
    seed: int,
    relu_aware: bool = True,
) -> Adjusted:
    """Re-fit every layer from the first that lacks something on."""
    dense: State = dict(captured.parameters)
    state: State = dict(masked(divided, ownership, dense))
    maps, _ = linear_maps(captured.graph_module.graph, dense)
    parts = _parts(divided, ownership, {linear.weight: linear for linear in maps})
    hold = [pair for linear in maps for pair in linear.held]
    graph = captured.graph_module.graph
    original, modified = GraphRun(graph, dense, chunks, hold=hold), GraphRun(graph, state, chunks, hold=hold)
    residuals: list[LayerResidual] = []
    changed = False
    for index, linear in enumerate(maps):
        original.advance(linear.end)
        modified.advance(linear.end)
        mine = parts.get(linear.weight)
        lacking = mine is not None and any(len(part.columns) < linear.columns for part in mine)
        changed = changed or lacking
        if not changed or not linear.intercept or (not lacking and linear.columns > _WIDEST_REPAIR):
            continue
        if mine is None or not lacking:
            mine = (_Part(torch.arange(linear.outputs), torch.arange(linear.columns)),)
        weights, bias, fits = _fitted(
            linear, mine, dense, original=original, modified=modified, seed=seed + index, relu_aware=relu_aware
        )
        if not bool(torch.isfinite(weights).all() and torch.isfinite(bias).all()):
            continue
        rows = torch.arange(linear.groups * linear.outputs)
        write_refit(linear, state, weights=weights, bias=bias, outputs=rows)
        variance = sum(fit.variance for fit in fits)
        error = sum(fit.error for fit in fits)
        method = "least-squares" if any(fit.method == "least-squares" for fit in fits) else "scale-and-bias"
        residuals.append(LayerResidual(linear.layer, error / variance if variance > 0 else error, fits[0].rows, method))
        modified.rerun(linear.chain)
    return Adjusted(state, tuple(residuals))


def _parts(divided: Divided, ownership: Ownership, maps: Mapping[str, LinearMap]) -> dict[str, tuple[_Part, ...]]:
    """Of each layer that reads an exchange, what every worker has of it."""
    found: dict[str, tuple[_Part, ...]] = {}
    for point in divided.points:
        for node, role in point.readers if point.kind == "send" else ():
            linear = maps.get(str(role.weight.target))
            if linear is None:
                continue
            owners = ownership.owner[divided.unit[divided.structure.channels[node].ravel()]]
            parts = []
            for worker in range(ownership.workers):
                channels = np.flatnonzero(ownership.keeps(point, worker)[role.columns[0]])
                columns = (channels[:, None] * linear.taps + np.arange(linear.taps)).ravel()
                outputs = np.flatnonzero(owners == worker)
                if len(outputs):
                    parts.append(_Part(torch.from_numpy(outputs), torch.from_numpy(columns)))
            found[linear.weight] = tuple(parts)
    return found


def _fitted(
    linear: LinearMap,
    parts: Sequence[_Part],
    dense: State,
    *,
    original: GraphRun,
    modified: GraphRun,
    seed: int,
    relu_aware: bool,
) -> tuple[torch.Tensor, torch.Tensor, list[Refit]]:
    """Weights for all columns and outputs, and the bias."""
    prior, kept = linear.folded(dense), KeptChannels.all_of(linear)
    weights = torch.zeros(linear.columns, linear.groups * linear.outputs, dtype=torch.float64)
    bias = torch.zeros(linear.groups * linear.outputs, dtype=torch.float64)
    if len(prior) > GRAM_COLUMNS and linear.groups == 1:
        held = torch.zeros_like(prior)
        for part in parts:
            held[part.columns[:, None], part.outputs] = prior[part.columns[:, None], part.outputs]
        sums = ScaleAccumulator(held)
        for inputs, targets, held_out in calibration_rows(
            linear, original=original, pruned=modified, kept=kept, seed=seed
        ):
            sums.add(inputs, targets, held_out=held_out)
        fit = sums.refit(intercept=True)
        return fit.weights, fit.bias, [fit]
    moments = collect_moments(linear, original=original, pruned=modified, kept=kept, seed=seed)
    fits: list[Refit] = []
    if linear.groups > 1:
        for rows, split in zip(kept.rows(linear), moments, strict=True):
            fit = refit_columns(split, prior=prior[:, rows], kept=torch.arange(len(prior)), intercept=True)
            weights[:, rows], bias[rows] = fit.weights, fit.bias
            fits.append(fit)
        return weights, bias, fits

    def solve(split: SplitMoments) -> None:
        fits.clear()
        for part in parts:
            mine = SplitMoments(fit=split.fit.outputs(part.outputs), held_out=split.held_out.outputs(part.outputs))
            fit = refit_columns(mine, prior=prior[:, part.outputs], kept=part.columns, intercept=True)
            weights[:, part.outputs], bias[part.outputs] = fit.weights, fit.bias
            fits.append(fit)

    solve(moments[0])
    if relu_aware and _feeds_relu(linear) and all(fit.method == "least-squares" for fit in fits):
        before = list(fits)
        rows = calibration_rows(linear, original=original, pruned=modified, kept=kept, seed=seed)
        solve(_one_sided(moments[0], rows, weights=weights.clone(), bias=bias.clone()))
        # What is reported is the error against the dense network's values, not against the targets of the last pass.
        fits[:] = before
    return weights, bias, fits


def _feeds_relu(linear: LinearMap) -> bool:
    users = list(linear.end.users)
    return len(users) == 1 and users[0].target in (aten.relu.default, aten.relu_.default)


def _one_sided(
    moments: SplitMoments,
    rows: Iterable[tuple[torch.Tensor, torch.Tensor, bool]],
    *,
    weights: torch.Tensor,
    bias: torch.Tensor,
) -> SplitMoments:
    """The same rows with targets that a ReLU cannot tell from the old ones: of the negative ones, what is there now."""
    sums = {
        held_out: (torch.zeros_like(weights), torch.zeros_like(bias), torch.zeros_like(bias))
        for held_out in (False, True)
    }
    for inputs, targets, held_out in rows:
        if not len(inputs):
            continue
        inputs, targets = inputs.double(), targets.double()
        wanted = torch.where(targets > 0, targets, (inputs @ weights + bias).clamp_max(0))
        cross, total, square = sums[held_out]
        cross.addmm_(inputs.T, wanted)
        total += wanted.sum(0)
        square += wanted.square().sum(0)
    fit, judge = (
        part.with_targets(cross=cross, target_sum=total, target_square=square)
        for part, (cross, total, square) in ((moments.fit, sums[False]), (moments.held_out, sums[True]))
    )
    return SplitMoments(fit=fit, held_out=judge)
