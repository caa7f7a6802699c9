"""Operators that take, join or order parts of their sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument
from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.operators.moves import keep, mover, positions_of, set_move, source_of, unchanged
from edgefolio_pruner.spatial.positions import collapse, concatenate
from edgefolio_pruner.spatial.roles import Constant, Move
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS"]

aten = torch.ops.aten


def _slice(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    axis = argument(node, "dim") % len(builder.shape(source))
    positions = positions_of(builder, source)
    if positions.shape[axis] > 1:
        start, end, step = argument(node, "start"), argument(node, "end"), argument(node, "step")
        if not all(bound is None or isinstance(bound, int) for bound in (start, end, step)):
            builder.set_barrier(node, f"operator {node.target} with a computed bound")
            return
        positions = positions[(slice(None),) * axis + (slice(start, end, step),)]
    set_move(builder, node, collapse(positions)[None])


def _select(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    axis = argument(node, "dim") % len(builder.shape(source))
    chosen = argument(node, "index")
    positions = positions_of(builder, source)
    if positions.shape[axis] > 1 and not isinstance(chosen, int):
        builder.set_barrier(node, f"operator {node.target} with a computed index")
        return
    set_move(builder, node, np.take(positions, chosen if positions.shape[axis] > 1 else 0, axis=axis)[None])


def _index_select(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    axis = argument(node, "dim") % len(builder.shape(source))
    chosen = argument(node, "index")
    positions = positions_of(builder, source)
    if positions.shape[axis] > 1:
        if not isinstance(chosen, fx.Node) or chosen.op != "get_attr":
            builder.set_barrier(node, f"operator {node.target} with a computed index")
            return
        order = builder.program.constant(chosen).cpu().numpy()
        positions = np.take(positions, order, axis=axis)
    set_move(builder, node, collapse(positions)[None])


def _cat(builder: Builder, node: fx.Node) -> None:
    given = node.args[0]
    assert isinstance(given, (list, tuple))
    sources = tuple(source for source in given if isinstance(source, fx.Node))
    rank = len(builder.shape(node))
    axis = argument(node, "dim") % rank
    if any(len(builder.shape(source)) != rank for source in sources):
        builder.set_barrier(node, "concatenation with an empty tensor")
        return
    for source in sources:
        _adopt_constant(builder, source, axis)
    parts, sizes, start = [], [], 0
    for source in sources:
        parts.append(positions_of(builder, source) + start)
        sizes.append(builder.shape(source)[axis])
        start += parts[-1].size
    varied = [other for part in parts for other in range(rank) if part.shape[other] > 1 and other != axis]
    if varied and all(part.shape[axis] == 1 for part in parts):
        lengths = np.broadcast_shapes(*[part.shape for part in parts])
        if any(part.shape != lengths for part in parts):
            builder.set_barrier(node, "concatenation of unlike tensors")
            return
        set_move(builder, node, np.stack(parts), sources=sources)
    elif varied:
        builder.set_barrier(node, "concatenation along two axes of channels")
    else:
        set_move(builder, node, concatenate(parts, sizes, axis)[None], sources=sources)


def _adopt_constant(builder: Builder, source: fx.Node, axis: int) -> None:
    if source.op == "get_attr" and source not in builder.channels:
        shape = builder.shape(source)
        lengths = [1] * len(shape)
        lengths[axis] = shape[axis]
        builder.channels[source] = builder.fresh(*lengths)
        builder.roles[source] = Constant()


def _flip(builder: Builder, node: fx.Node) -> None:
    channels = builder.channels[source_of(node)]
    axes: Any = argument(node, "dims")
    if any(channels.shape[axis % channels.ndim] > 1 for axis in axes) or not axes:
        builder.set_barrier(node, f"operator {node.target} along the axis of the channels")
        return
    keep(builder, node)


def _getitem(builder: Builder, node: fx.Node) -> None:
    """The first result of an operator that returns several, such as a pool with indices."""
    source = source_of(node)
    if node.args[1] != 0 or not isinstance(builder.roles.get(source), Move):
        builder.set_barrier(node, f"operator {source.target}")
        return
    keep(builder, node)


def _take(writer: Writer, node: fx.Node, axis: int, kept: NDArray[np.bool_], taken: NDArray[Any]) -> fx.Node:
    """Those of the positions ``taken`` that are kept, by a slice where they follow one another."""
    source = writer.new(node.args[0])  # type: ignore[arg-type]
    places = (np.cumsum(kept) - 1)[taken[kept[taken]]]
    if np.array_equal(places, np.arange(int(kept.sum()))):
        return source
    if np.array_equal(places, np.arange(places[0], places[0] + len(places))):
        return writer.call(aten.slice.Tensor, source, axis, int(places[0]), int(places[0]) + len(places))
    index = torch.from_numpy(np.ascontiguousarray(places)).to(torch.int64)
    held = writer.hold(f"channel_orders.{node.name}", index)
    return writer.call(aten.index_select.default, source, axis, held)


def _cut_axis(writer: Writer, node: fx.Node, role: Move) -> tuple[int, NDArray[np.bool_]] | None:
    """The axis that ``node`` takes from and which of its positions stay; ``None`` if all do."""
    source = role.sources[0]
    axis = argument(node, "dim") % len(writer.program.shapes[source])
    kept = writer.plan.along(source, axis)
    return (axis, kept) if len(kept) > 1 and not kept.all() else None


def _write_slice(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
    if (cut := _cut_axis(writer, node, role)) is None:
        return writer.copy(node)
    bounds = slice(argument(node, "start"), argument(node, "end"), argument(node, "step"))
    return _take(writer, node, *cut, np.arange(len(cut[1]))[bounds])


def _write_index_select(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
    if (cut := _cut_axis(writer, node, role)) is None:
        return writer.copy(node)
    return _take(writer, node, *cut, writer.program.constant(argument(node, "index")).numpy())


def _write_select(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
    if (cut := _cut_axis(writer, node, role)) is None:
        return writer.copy(node)
    _, kept = cut
    return writer.copy(node, index=int(kept[: argument(node, "index") % len(kept)].sum()))


def _write_cat(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
    axis = argument(node, "dim") % len(writer.program.shapes[node])
    parts = []
    for source in role.sources:
        if writer.plan.is_absent(source):
            continue
        if source.op == "get_attr":
            kept = writer.plan.along(source, axis)
            parts.append(
                writer.constant_slice(source, axis, np.broadcast_to(kept, (writer.program.shapes[source][axis],)))
            )
        else:
            parts.append(writer.new(source))
    return parts[0] if len(parts) == 1 else writer.call(aten.cat.default, parts, axis)


OPERATORS = {
    "slice": mover(_slice, _write_slice),
    "select": mover(_select, _write_select),
    "index_select": mover(_index_select, _write_index_select),
    "cat": mover(_cat, _write_cat),
    "flip": mover(_flip, unchanged),
    "getitem": mover(_getitem, unchanged),
}
