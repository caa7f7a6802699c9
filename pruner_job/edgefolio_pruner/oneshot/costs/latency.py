"""Time of a net as a function of the channels kept per group, from a measured table of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgefolio_pruner.oneshot.costs.macs import Axis, CostModel, LayerCost, layer_costs
from edgefolio_pruner.profiling.layer_times import LayerShape, LayerTimes
from edgefolio_pruner.spatial import ChannelGroup
from edgefolio_pruner.spatial.graph.nodes import argument, operator_name

#: Most widths measured along one axis of a weight.
MOST_WIDTHS = 12


@dataclass(frozen=True)
class TimedLayer:
    """One use of a weight with its measured times."""

    layer: LayerCost
    times: LayerTimes

    @property
    def groups(self) -> frozenset[str]:
        """The groups whose channels it holds."""
        return self.layer.groups

    def cost(self, channels: Mapping[str, int], kept: Mapping[str, int]) -> float:
        """Milliseconds with ``kept`` of ``channels`` per group."""
        rows, columns = self.layer.axes
        return self.times.at(rows.kept(channels, kept), columns.kept(channels, kept))


def latency_model(
    layers: Sequence[LayerCost], times: Mapping[str, LayerTimes], groups: Sequence[ChannelGroup]
) -> CostModel:
    """Milliseconds of all convolutions and linear layers; what else a net does is not in it."""
    return CostModel(
        [TimedLayer(layer, times[layer.name]) for layer in layers if layer.name in times],
        {group.name: group.channels for group in groups},
    )


def layer_shapes(
    graph: fx.Graph, state: Mapping[str, torch.Tensor], groups: Sequence[ChannelGroup], *, steps: Mapping[str, int]
) -> tuple[LayerShape, ...]:
    """The layers to measure; ``steps``: the number of channels in which each group is cut."""
    found: dict[str, LayerShape] = {}
    costs = {layer.name: layer for layer in layer_costs(graph, state, groups)}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        weight = argument(node, "weight")
        name = str(weight.target) if isinstance(weight, fx.Node) and weight.op == "get_attr" else ""
        if name not in costs or name in found:
            continue
        shape = _shape_of(node, costs[name], state, steps)
        if shape is not None:
            found[name] = shape
    return tuple(found.values())


def _shape_of(
    node: fx.Node, layer: LayerCost, state: Mapping[str, torch.Tensor], steps: Mapping[str, int]
) -> LayerShape | None:
    source = argument(node, "input")
    dimensions = [int(size) for size in source.meta["val"].shape]
    weight = state[layer.name]
    widths = [_widths(axis, steps) for axis in layer.axes]
    if operator_name(node) == "linear":
        size, per_axis, groups = tuple(dimensions[1:-1]), 0, 1
    elif operator_name(node) in ("conv1d", "conv2d", "conv3d"):
        size, per_axis, groups = tuple(dimensions[2:]), weight.ndim - 2, int(argument(node, "groups", 1))
    else:
        return None
    padding = argument(node, "padding", 0) if per_axis else 0
    kernel = tuple(int(taps) for taps in weight.shape[2:])
    dilation = _along(argument(node, "dilation", 1) if per_axis else 1, per_axis)
    if padding == "same":
        padding = [(taps - 1) * step // 2 for taps, step in zip(kernel, dilation, strict=True)]
    elif padding == "valid":
        padding = 0
    return LayerShape(
        name=layer.name,
        kind="conv" if per_axis else "linear",
        size=size,
        groups=groups,
        depthwise=groups > 1 and weight.shape[1] == 1,
        kernel=kernel,
        stride=_along(argument(node, "stride", 1) if per_axis else 1, per_axis),
        padding=_along(padding, per_axis),
        dilation=dilation,
        rows=widths[0],
        columns=widths[1],
    )


def _widths(axis: Axis, steps: Mapping[str, int]) -> tuple[int, ...]:
    """Up to MOST_WIDTHS sizes that the axis may have, the whole last."""
    if not axis.held:
        return (axis.size,)
    unit = max(steps.get(group, 1) * positions for group, positions in axis.held)
    apart = unit * -(-axis.size // (unit * MOST_WIDTHS))
    return (*range(apart, axis.size, apart), axis.size)


def _along(value: Any, axes: int) -> tuple[int, ...]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(int(item) for item in (values * axes if len(values) == 1 else values))
