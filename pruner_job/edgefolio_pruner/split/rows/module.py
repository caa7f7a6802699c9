"""One worker's band as a module: the padding that its edges need, and the rows that it reads and computes.

A band is padded at the edges of the image alone; at an edge between two bands the neighbour's rows are there instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.spatial.graph.capture import assign_tensor
from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.split.rows.bands import Rows, divisors
from edgefolio_pruner.split.rows.plan import RowPlan
from edgefolio_pruner.split.rows.states import WINDOWED, windows_of
from edgefolio_pruner.split.shards.writing import Joint, RankModule

__all__ = ["RowModule", "row_module"]

aten = torch.ops.aten


@dataclass
class RowModule:
    """One worker's band as a module: its outputs are the bands that others need, then those of the network."""

    plan: RowPlan
    worker: int
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: torch.nn.Module = field(default_factory=torch.nn.Module)
    values: dict[fx.Node, fx.Node] = field(default_factory=dict)
    joined: dict[fx.Node, fx.Node] = field(default_factory=dict)
    own: list[fx.Node] = field(default_factory=list)
    joints: list[Joint] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    module: fx.GraphModule = field(init=False)

    def part(self) -> RankModule:
        """The band as a part of a shard."""
        shapes = (*self.plan.program.captured.input_shapes, *self.shapes)
        return RankModule(self.module, tuple(self.joints), shapes)

    def call(self, target: Any, *arguments: Any) -> fx.Node:
        """A new call."""
        return self.graph.call_function(target, arguments)

    def hold(self, name: str, tensor: torch.Tensor) -> fx.Node:
        """A constant of the band."""
        self.root.register_buffer(name, tensor)
        return self.graph.get_attr(name)

    def read(self, source: fx.Node, rows: Rows) -> fx.Node:
        """These rows of a value: of what everybody has, of what the worker computes, or of what came from others."""
        size = self.plan.program.shapes[source][2]
        if self.plan.states[source] == "whole":
            return self._sliced(self.values[source], rows, size)
        held = self.plan.computed[source][self.worker]
        if not len(rows):
            # All that is read lies in the padding.
            return self._sliced(self.values[source], Rows(0, 0), len(held))
        if held.holds(rows):
            return self._sliced(self.values[source], Rows(rows.start - held.start, rows.stop - held.start), len(held))
        kept = np.flatnonzero(self.plan.traffic.keeps(self.plan.points[source], self.worker))
        first = int(np.searchsorted(kept, rows.start))
        assert kept[first] == rows.start, (source, rows)
        assert kept[first + len(rows) - 1] == rows.stop - 1, (source, rows)
        return self._sliced(self.joined[source], Rows(first, first + len(rows)), len(kept))

    def whole(self, source: fx.Node) -> fx.Node:
        """All of a value."""
        if self.plan.states.get(source) == "rows":
            return self.read(source, Rows(0, self.plan.program.shapes[source][2]))
        return self.values[source]

    def _sliced(self, value: fx.Node, rows: Rows, size: int) -> fx.Node:
        if (rows.start, rows.stop) == (0, size):
            return value
        return self.call(aten.slice.Tensor, value, 2, rows.start, rows.stop, 1)


def row_module(plan: RowPlan, worker: int) -> RowModule:
    """The band of one worker."""
    found = RowModule(plan, worker)
    for name, tensor in plan.program.module.state_dict(keep_vars=True).items():
        assign_tensor(found.root, name, tensor.detach().clone(), trainable=isinstance(tensor, torch.nn.Parameter))
    for node in plan.program.nodes:
        _write(found, node)
    found.graph.eliminate_dead_code()
    found.module = fx.GraphModule(found.root, found.graph).eval()
    return found


def _write(found: RowModule, node: fx.Node) -> None:
    plan = found.plan
    if node.op == "placeholder":
        found.values[node] = found.graph.placeholder(node.name)
    elif node.op == "get_attr":
        found.values[node] = found.graph.get_attr(str(node.target))
    elif node.op == "output":
        found.graph.output((*found.own, *[found.whole(source) for source in node.all_input_nodes]))
    elif node not in plan.states:
        # Sizes: of the batch, as everything else is fixed.
        found.values[node] = found.graph.node_copy(node, lambda source: found.values[source])
    elif plan.states[node] == "rows":
        found.values[node] = _banded(found, node)
        if node in plan.points:
            _exchange(found, node)
    elif plan.states[node] == "part":
        found.values[node] = _part(found, node)
    else:
        arguments, keywords = fx.map_arg((node.args, node.kwargs), found.whole)
        assert callable(node.target)
        found.values[node] = found.graph.call_function(node.target, arguments, keywords)


def _exchange(found: RowModule, node: fx.Node) -> None:
    point = found.plan.points[node]
    found.own.append(found.values[node])
    found.joined[node] = found.graph.placeholder(f"{point.name}_joined")
    _, channels, _, columns = found.plan.program.shapes[node]
    rows = int(found.plan.traffic.keeps(point, found.worker).sum())
    found.shapes.append((channels, rows, columns))
    found.joints.append(Joint(point, f"{point.name}_own", f"{point.name}_joined"))


def _banded(found: RowModule, node: fx.Node) -> fx.Node:
    plan = found.plan
    band = plan.computed[node][found.worker]
    if operator_name(node) in WINDOWED:
        return _windowed(found, node, band)

    def operand(source: fx.Node) -> fx.Node:
        shapes, rows = plan.program.shapes, plan.program.shapes[node][2]
        is_image = source in plan.states and len(shapes[source]) == 4 and shapes[source][2] == rows and rows > 1
        return found.read(source, band) if is_image else found.values[source]

    arguments, keywords = fx.map_arg((node.args, node.kwargs), operand)
    assert callable(node.target)
    return found.graph.call_function(node.target, arguments, keywords)


def _windowed(found: RowModule, node: fx.Node, band: Rows) -> fx.Node:
    """A convolution or pool over a band, padded by hand: at the edges of the image, and nowhere else."""
    plan, name = found.plan, operator_name(node)
    source = argument(node, "input", node.args[0])
    shape_in, shape_out = plan.program.shapes[source], plan.program.shapes[node]
    vertical, horizontal = windows_of(node, plan.program)
    rows, above, below = vertical.needs(band, shape_in[2])
    _, left, right = horizontal.needs(Rows(0, shape_out[3]), shape_in[3])
    value = found.read(source, rows)
    fill = float("-inf") if name == "max_pool2d" else 0.0
    if any((left, right, above, below)):
        value = found.call(aten.constant_pad_nd.default, value, [left, right, above, below], fill)
    # What the last window does not reach is not read: the result would be larger.
    reach = vertical.dilation * (vertical.kernel - 1) + (len(band) - 1) * vertical.stride + 1
    if above + len(rows) + below > reach:
        value = found.call(aten.slice.Tensor, value, 2, 0, reach, 1)
    kernel, stride = [vertical.kernel, horizontal.kernel], [vertical.stride, horizontal.stride]
    dilation = [vertical.dilation, horizontal.dilation]
    if name == "conv2d":
        weight, bias = argument(node, "weight"), argument(node, "bias")
        held = None if bias is None else found.values[bias]
        groups = argument(node, "groups")
        return found.call(aten.conv2d.default, value, found.values[weight], held, stride, [0, 0], dilation, groups)
    if name == "max_pool2d":
        return found.call(aten.max_pool2d.default, value, kernel, stride, [0, 0], dilation, False)
    pooled = found.call(aten.avg_pool2d.default, value, kernel, stride, [0, 0], False, True)
    factor = _factor(plan, node, band)
    return pooled if factor is None else found.call(aten.mul.Tensor, pooled, found.hold(f"{node.name}_factor", factor))


def _factor(plan: RowPlan, node: fx.Node, band: Rows) -> torch.Tensor | None:
    """What turns a mean over whole windows into that of an average pool at its edges; None where there is nothing."""
    shape_in, shape_out = plan.program.shapes[node.args[0]], plan.program.shapes[node]  # type: ignore[index]
    override = argument(node, "divisor_override")
    counts = []
    for axis, window in enumerate(windows_of(node, plan.program)):
        counts.append(
            divisors(
                window,
                results=shape_out[2 + axis],
                size=shape_in[2 + axis],
                after=window.before,
                includes_padding=bool(argument(node, "count_include_pad")),
            )
        )
    vertical, horizontal = windows_of(node, plan.program)
    whole = vertical.kernel * horizontal.kernel
    divisor = np.outer(counts[0][band.start : band.stop], counts[1])
    if override is not None:
        divisor = np.full_like(divisor, float(override))
    factor = whole / divisor
    if (factor == 1).all():
        return None
    return torch.from_numpy(factor.astype(np.float32))[None, None]


def _part(found: RowModule, node: fx.Node) -> fx.Node:
    """A term of a sum: of the mean over all positions that of the band, of a linear operator its value."""
    plan = found.plan
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if plan.states[source] == "rows":
        _, _, rows, columns = plan.program.shapes[source]
        keeps = operator_name(node) == "adaptive_avg_pool2d" or bool(argument(node, "keepdim"))
        band = found.read(source, plan.band(source, found.worker))
        total = found.call(aten.sum.dim_IntList, band, [2, 3], keeps)
        return found.call(aten.mul.Tensor, total, 1 / (rows * columns))
    arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda each: found.values[each])
    assert callable(node.target)
    if operator_name(node) == "linear" and found.worker:
        # The offset is added once, by the first worker.
        arguments, keywords = arguments[:2], {}
    return found.graph.call_function(node.target, arguments, keywords)
