"""Need analysis, the backward pass: which channels some layer or output reads.

Need is found per slot of every value, from the outputs towards the inputs. A layer needs a channel if one of its needed
rows has a weight that is not zero for it, unless the layer can do without the channel: it is zero, or it is constant
and zero padding never shows (then the layer's bias takes it over).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.passes.constant_propagation import ChannelConstants, Constancy, operand_constants
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.spatial.roles import Attention, Barrier, Contraction, Exchange, Map, Mixer, Move, Output, Zeros
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["Merge", "Needs", "find_needs"]

Mask = NDArray[np.bool_]


@dataclass
class Merge:
    """Constant channels of one layer's input that a single one of them stands for.

    ``representative`` and ``members`` are (group, input) columns; ``ratios`` the members' values over its value.
    """

    representative: tuple[int, int]
    members: list[tuple[int, int]]
    ratios: list[float]


@dataclass
class Needs:
    """``slots[node]``: which slots of its value are needed; ``reads[node]`` (groups, inputs): what a layer reads.

    ``soft[node]`` (groups, inputs): columns that are read only because a constant meets zero padding. ``pairs[node]``
    (heads, pairs per head): the products of query and key that an attention needs.
    """

    slots: dict[fx.Node, Mask] = field(default_factory=dict)
    reads: dict[fx.Node, Mask] = field(default_factory=dict)
    pairs: dict[fx.Node, Mask] = field(default_factory=dict)
    soft: dict[fx.Node, Mask] = field(default_factory=dict)


def find_needs(
    structure: Structure,
    constants: ChannelConstants,
    matrices: Matrices,
    *,
    merges: Mapping[fx.Node, list[Merge]],
    pairs: Mapping[fx.Node, Mask] | None = None,
    ignore_soft: bool = False,
) -> Needs:
    """One backward pass, repeated until all call sites of a shared weight agree on the columns they read.

    ``pairs`` (heads, pairs per head) are needed by their attention in any case. With ``ignore_soft`` columns that are
    read only because a constant meets zero padding count as not read.
    """
    sites: dict[tuple[str, str], list[fx.Node]] = defaultdict(list)
    for node, role in structure.contractions():
        sites[str(role.weight.target), role.kind].append(node)
    shared = [nodes for nodes in sites.values() if len(nodes) > 1]
    forced: dict[fx.Node, Mask] = {}
    while True:
        needs = _pass(structure, constants, matrices, merges, forced, pairs or {}, ignore_soft)
        settled = True
        for nodes in shared:
            union = np.logical_or.reduce([needs.reads[node] for node in nodes])
            for node in nodes:
                if (union & ~needs.reads[node]).any():
                    forced[node] = union
                    settled = False
        if settled:
            return needs


def _pass(
    structure: Structure,
    constants: ChannelConstants,
    matrices: Matrices,
    merges: Mapping[fx.Node, list[Merge]],
    forced: Mapping[fx.Node, Mask],
    pairs: Mapping[fx.Node, Mask],
    ignore_soft: bool,
) -> Needs:
    needs = Needs()
    for node, channels in structure.channels.items():
        needs.slots[node] = np.zeros(channels.shape, dtype=bool)
    for node, role in reversed(structure.roles.items()):
        if isinstance(role, (Output, Barrier)):
            for source in role.inputs:
                needs.slots[source][...] = True
        elif isinstance(role, Move):
            _move(needs, node, role)
        elif isinstance(role, Map):
            _map(structure, constants, needs, node, role)
        elif isinstance(role, Exchange):
            needs.slots[role.source] |= needs.slots[node]
        elif isinstance(role, Mixer):
            if needs.slots[node].any():
                needs.slots[role.source] |= constants.codes[role.source] >= Constancy.BORDER
        elif isinstance(role, Attention):
            _attend(structure, constants, needs, node, role, pairs.get(node))
        elif isinstance(role, Contraction):
            _contract(needs, constants, matrices, node, role, merges.get(node, []), forced.get(node), ignore_soft)
    return needs


def _move(needs: Needs, node: fx.Node, role: Move) -> None:
    taken = role.index[:, needs.slots[node]]
    sizes = [needs.slots[source].size for source in role.sources]
    flat = np.zeros(sum(sizes), dtype=bool)
    flat[taken[taken >= 0]] = True
    start = 0
    for source, size in zip(role.sources, sizes, strict=True):
        needs.slots[source] |= flat[start : start + size].reshape(needs.slots[source].shape)
        start += size


def _map(structure: Structure, constants: ChannelConstants, needs: Needs, node: fx.Node, role: Map) -> None:
    wanted = needs.slots[node]
    if not wanted.any():
        return
    masks = [wanted] * len(role.operands)
    if role.zeros is not Zeros.ORDINARY:
        zero = [
            operand_constants(structure, constants, operand, wanted.shape)[0] == Constancy.ZERO
            for operand in role.operands[:2]
        ]
        if role.zeros in (Zeros.ABSORB, Zeros.SCALE):
            masks[0] = wanted & ~zero[1]
        if role.zeros is Zeros.ABSORB:
            # Not both: one of the zeros must stay.
            masks[1] = wanted & ~(zero[0] & ~zero[1])
    for operand, mask in zip(role.operands, masks, strict=True):
        if operand.node.op == "get_attr":
            continue
        slots = needs.slots[operand.node]
        shape = (1,) * (len(operand.view) - slots.ndim) + slots.shape
        slots |= reduce_to(mask, shape).reshape(slots.shape)


def reduce_to(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """Whether any of the positions that are repeated from ``shape`` is set."""
    axes = tuple(axis for axis in range(mask.ndim) if shape[axis] == 1 and mask.shape[axis] > 1)
    result: Mask = np.broadcast_to(mask.any(axis=axes, keepdims=True), shape)
    return result


def _attend(
    structure: Structure,
    constants: ChannelConstants,
    needs: Needs,
    node: fx.Node,
    role: Attention,
    forced: Mask | None,
) -> None:
    """A pair is needed unless it adds nothing, or the same to all keys of a query: softmax does not see that."""
    wanted = needs.slots[node]
    needs.slots[role.value] |= wanted
    shapes = structure.program.shapes
    size = shapes[role.query][-1]
    query = role.by_head(constants.codes[role.query], size)
    key = role.by_head(constants.codes[role.key], size)
    attended = role.by_head(wanted, shapes[role.value][-1]).any(axis=1)
    pairs: Mask = attended[:, None] & (query != Constancy.ZERO) & (key > Constancy.CONSTANT)
    if forced is not None:
        pairs = pairs | forced
    needs.pairs[node] = pairs
    for source in (role.query, role.key):
        slots = needs.slots[source]
        slots |= reduce_to(pairs.reshape((1,) * (slots.ndim - 1) + (-1,)), slots.shape)
    if (attended.any() or pairs.any()) and role.mask in needs.slots:
        needs.slots[role.mask][...] = True


def _contract(
    needs: Needs,
    constants: ChannelConstants,
    matrices: Matrices,
    node: fx.Node,
    role: Contraction,
    merges: list[Merge],
    forced: Mask | None,
    ignore_soft: bool,
) -> None:
    matrix = matrices[role]
    rows = needs.slots[node].reshape(role.groups, role.outputs_per_group)
    codes = constants.codes[role.source].ravel()[role.columns]
    weighty = _any_row(matrix.nonzero, rows)
    reads = weighty & (codes >= Constancy.BORDER)
    soft = (codes == Constancy.CONSTANT) & weighty
    if soft.any():
        soft &= _any_row(matrix.exposed, rows)
    for merge in merges:
        for member in merge.members:
            soft[member] = False
        if rows.any():
            reads[merge.representative] = True
            soft[merge.representative] = False
    if not ignore_soft:
        reads = reads | soft
    if forced is not None:
        reads = reads | forced
    needs.reads[node] = reads
    needs.soft[node] = soft
    needs.slots[role.source].reshape(-1)[role.columns[reads]] = True


def _any_row(entries: Mask, rows: Mask) -> Mask:
    """Whether any needed row has an entry: (groups, inputs)."""
    if entries.shape[0] == 1:
        return np.asarray(entries[0][rows[0]].any(axis=0)[None], dtype=np.bool_)
    return np.asarray((entries & rows[:, :, None]).any(axis=1), dtype=np.bool_)
