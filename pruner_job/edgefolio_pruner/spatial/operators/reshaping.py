"""Operators that arrange the same values in another shape."""

from __future__ import annotations

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.operators.moves import mover, positions_of, set_move, source_of, unchanged
from edgefolio_pruner.spatial.operators.operator import Rewrite
from edgefolio_pruner.spatial.positions import expand_axis, reshape
from edgefolio_pruner.spatial.roles import Move
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS"]


def _reshape(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    index = reshape(positions_of(builder, source), builder.shape(source), builder.shape(node))
    channels = builder.channels[source].ravel()
    ways = index[None]
    for axis in range(index.ndim):
        taken = channels[ways[0]]
        if taken.shape[axis] > 1 and (taken == np.take(taken, [0], axis=axis)).all():
            # Slots of one channel, such as its places after a flattening, come together again.
            ways = np.expand_dims(
                np.moveaxis(ways, axis + 1, 0).reshape(-1, *np.delete(ways.shape[1:], axis)), axis + 1
            )
    set_move(builder, node, ways)


def _permute(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    rank = len(builder.shape(source))
    order = list(range(rank))
    name = operator_name(node)
    if name == "permute":
        order = [axis % rank for axis in argument(node, "dims")]
    elif name == "t":
        order = order[::-1]
    else:
        first = argument(node, "dim0", argument(node, "axis0")) % rank
        second = argument(node, "dim1", argument(node, "axis1")) % rank
        order[first], order[second] = second, first
    set_move(builder, node, positions_of(builder, source).transpose(order)[None])


def _expand(builder: Builder, node: fx.Node) -> None:
    positions = positions_of(builder, source_of(node))
    rank = len(builder.shape(node))
    set_move(builder, node, positions.reshape((1,) * (rank - positions.ndim) + positions.shape)[None])


def _pixel_shuffle(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    factor = int(argument(node, "upscale_factor"))
    positions = positions_of(builder, source)
    if positions.ndim != 4 or positions.size != positions.shape[1]:
        builder.set_barrier(node, "pixel shuffle of other than (batch, channels, height, width)")
        return
    full = expand_axis(positions, 1, builder.shape(source)[1])
    index = full.reshape(-1, factor * factor).T.reshape(factor * factor, 1, -1, 1, 1)
    set_move(builder, node, index)


def _pixel_unshuffle(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    factor = int(argument(node, "downscale_factor"))
    positions = positions_of(builder, source)
    if positions.ndim != 4 or positions.size != positions.shape[1]:
        builder.set_barrier(node, "pixel unshuffle of other than (batch, channels, height, width)")
        return
    full = expand_axis(positions, 1, builder.shape(source)[1])
    set_move(builder, node, np.repeat(full, factor * factor, axis=1)[None])


def _write_sizes(name: str, *, from_dim: bool = False) -> Rewrite:
    """Rewrite the sizes in argument ``name``, of all axes or of those from ``dim`` on."""

    def rewrite(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
        channels = writer.plan.structure.channels[node]
        given = list(argument(node, name))
        first = argument(node, "dim") % len(writer.program.shapes[role.sources[0]]) if from_dim else 0
        changed = False
        for place in range(len(given)):
            axis = first + place
            if channels.shape[axis] > 1 and given[place] != -1:
                count = int(writer.plan.along(node, axis).sum())
                if count != writer.program.shapes[node][axis]:
                    given[place] = count
                    changed = True
        return writer.copy(node, **{name: given}) if changed else writer.copy(node)

    return rewrite


OPERATORS = {
    "reshape": mover(_reshape, _write_sizes("shape")),
    "unflatten": mover(_reshape, _write_sizes("sizes", from_dim=True)),
    **dict.fromkeys(("flatten", "unsqueeze", "squeeze"), mover(_reshape, unchanged)),
    **dict.fromkeys(("permute", "transpose", "swapaxes", "t"), mover(_permute, unchanged)),
    "expand": mover(_expand, _write_sizes("size")),
    "pixel_shuffle": mover(_pixel_shuffle, unchanged),
    "pixel_unshuffle": mover(_pixel_unshuffle, unchanged),
}
