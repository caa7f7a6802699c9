"""New weights for convolutions and linear layers that lose channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.passes.constant_propagation import Constancy
from edgefolio_pruner.spatial.passes.removal_plan import RemovalPlan
from edgefolio_pruner.spatial.roles import Contraction

__all__ = ["NewLayer", "folded_columns", "new_layer"]


@dataclass(frozen=True)
class NewLayer:
    """A layer's new weight (original layout), bias in the weight's type (``None`` if there is none) and groups.

    ``weight`` is ``None`` if the layer has no input left: then it is the constant ``bias``. ``unchanged`` tells that
    both are exactly the old ones.
    """

    weight: torch.Tensor | None
    bias: torch.Tensor | None
    groups: int
    unchanged: bool


def folded_columns(plan: RemovalPlan, node: fx.Node, role: Contraction) -> NDArray[np.bool_]:
    """Columns (groups, inputs) that are constant and not read: the layer's bias takes them over."""
    codes = plan.constants.codes[role.source].ravel()[role.columns]
    folded: NDArray[np.bool_] = (codes == Constancy.CONSTANT) & ~plan.needs.reads[node]
    for merge in plan.merges.get(node, []):
        for member in merge.members:
            folded[member] = False
    return folded


def new_layer(plan: RemovalPlan, node: fx.Node, role: Contraction, *, shared: bool) -> NewLayer:
    """The layer after the plan; ``shared`` if other call sites use the same weight."""
    matrix = plan.matrices[role]
    channels = plan.structure.channels
    keep_rows = plan.keep[channels[node]].reshape(role.groups, role.outputs_per_group)
    keep_columns = plan.keep[channels[role.source]].ravel()[role.columns]
    needed_rows = plan.needs.slots[node].reshape(role.groups, role.outputs_per_group)
    values = plan.constants.values[role.source].ravel()[role.columns]
    folded = folded_columns(plan, node, role)
    added = matrix.column_sums(np.where(folded, values, 0.0))
    bias = np.where(needed_rows, matrix.bias + added, 0.0)
    rows_matter = needed_rows | shared
    program = plan.structure.program
    casts = program.casts(matrix.weight)
    dtype = program.captured.reads_as if casts and program.captured.reads_as else matrix.weight.dtype

    clear_columns = keep_columns & ~plan.needs.reads[node] & matrix.nonzero.any(axis=1)
    clear_rows = keep_rows & ~rows_matter & matrix.nonzero.any(axis=2)
    weight = matrix.weight
    if clear_columns.any() or clear_rows.any() or plan.merges.get(node):
        weight = weight.to(dtype, copy=True)
        _merge_columns(plan, node, weight, matrix.weight)
        weight[torch.from_numpy(clear_rows)] = 0
        if clear_columns.any():
            weight *= torch.from_numpy(~clear_columns)[:, None, :, None].to(dtype)
    same_bias = np.array_equal(bias[keep_rows], matrix.bias[keep_rows])
    has_bias = role.bias is not None or bool(bias[keep_rows].any())
    new_bias = torch.from_numpy(bias[keep_rows]).to(dtype) if has_bias else None
    if keep_rows.all() and keep_columns.all() and weight is matrix.weight and same_bias:
        return NewLayer(None, None, role.groups, unchanged=True)
    if not keep_columns.any():
        return NewLayer(None, torch.from_numpy(bias[keep_rows]).to(dtype), 1, unchanged=False)
    alive = np.flatnonzero(keep_columns.any(axis=1) | keep_rows.any(axis=1))
    rows = _indices(keep_rows[alive])
    columns = _indices(keep_columns[alive])
    sliced = weight[torch.from_numpy(alive)[:, None, None], rows[:, :, None], columns[:, None, :]]
    original = program.shapes[role.weight]
    if role.kind == "conv_transpose":
        sliced = sliced.transpose(1, 2)
        shape = (len(alive) * columns.shape[1], rows.shape[1], *original[2:])
    else:
        shape = (len(alive) * rows.shape[1], columns.shape[1], *original[2:])
    return NewLayer(sliced.reshape(shape).contiguous().to(dtype), new_bias, len(alive), unchanged=False)


def _indices(mask: NDArray[np.bool_]) -> torch.Tensor:
    """The set positions of each row, all rows having equally many."""
    counts = mask.sum(axis=1)
    assert (counts == counts[0]).all(), "groups of unequal size"
    return torch.from_numpy(np.nonzero(mask)[1].reshape(mask.shape[0], int(counts[0])))


def _merge_columns(plan: RemovalPlan, node: fx.Node, weight: torch.Tensor, before: torch.Tensor) -> None:
    """Add the columns of merged constants to that of their representative, in float64."""
    for merge in plan.merges.get(node, []):
        group, column = merge.representative
        total = before[group, :, column].to(torch.float64)
        members = torch.tensor([member for _, member in merge.members if member != column], dtype=torch.int64)
        ratios = [r for (_, member), r in zip(merge.members, merge.ratios, strict=True) if member != column]
        scaled = before[group][:, members].to(torch.float64) * torch.tensor(ratios, dtype=torch.float64)[:, None]
        weight[group, :, column] = (total + scaled.sum(dim=1)).to(weight.dtype)
