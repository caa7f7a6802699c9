"""Operators that move data, rewritten for fewer channels: sizes, bounds and indices that count channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.roles import Move

if TYPE_CHECKING:
    from edgefolio_pruner.spatial.graph_writer import Writer

__all__ = ["rewrite_movement"]

aten = torch.ops.aten


def rewrite_movement(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
    """The new node for ``node``, whose value has at least one channel left."""
    name = operator_name(node)
    if name == "cat":
        return _cat(writer, node, role)
    source = role.sources[0]
    if name in ("reshape", "view", "expand", "unflatten"):
        return _sizes(writer, node)
    if name in ("slice", "select", "index_select"):
        axis = argument(node, "dim") % len(writer.program.shapes[source])
        kept = writer.plan.along(source, axis)
        if len(kept) > 1 and not kept.all():
            if name == "select":
                chosen = argument(node, "index") % len(kept)
                return writer.copy(node, index=int(kept[:chosen].sum()))
            return _take(writer, node, kept, axis, _taken(writer, node, len(kept)))
    elif name in ("pad", "constant_pad_nd") and bool((role.index < 0).any()):
        return _pad(writer, node)
    return writer.copy(node)


def _sizes(writer: Writer, node: fx.Node) -> fx.Node:
    """Size arguments of axes that count channels."""
    channels = writer.plan.structure.channels[node]
    inside = operator_name(node) == "unflatten"
    name = {"expand": "size", "reshape": "shape", "view": "size", "unflatten": "sizes"}[operator_name(node)]
    given = list(argument(node, name))
    first = argument(node, "dim") % len(writer.program.shapes[node.args[0]]) if inside else 0  # type: ignore[index]
    changed = False
    for place in range(len(given)):
        axis = first + place
        if channels.shape[axis] > 1 and given[place] != -1:
            count = int(writer.plan.along(node, axis).sum())
            if count != writer.program.shapes[node][axis]:
                given[place] = count
                changed = True
    return writer.copy(node, **{name: given}) if changed else writer.copy(node)


def _taken(writer: Writer, node: fx.Node, size: int) -> NDArray[Any]:
    """The positions that a slice or an index takes, of ``size`` many."""
    if operator_name(node) == "index_select":
        return writer.program.constant(argument(node, "index")).numpy()
    return np.arange(size)[slice(argument(node, "start"), argument(node, "end"), argument(node, "step"))]


def _take(writer: Writer, node: fx.Node, kept: NDArray[np.bool_], axis: int, taken: NDArray[Any]) -> fx.Node:
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


def _cat(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
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


def _pad(writer: Writer, node: fx.Node) -> fx.Node:
    """Padding of the axis of channels: as many as stay of those it adds."""
    channels = writer.plan.structure.channels[node]
    mask = writer.plan.mask(node).ravel()
    amounts = list(argument(node, "pad"))
    for place in range(len(amounts) // 2):
        axis = channels.ndim - 1 - place
        if channels.shape[axis] > 1 and (amounts[2 * place] or amounts[2 * place + 1]):
            before, after = amounts[2 * place], amounts[2 * place + 1]
            amounts[2 * place] = int(mask[:before].sum())
            amounts[2 * place + 1] = int(mask[len(mask) - after :].sum()) if after else 0
    return writer.copy(node, pad=amounts)
