"""Multiply-accumulates of a net as a function of the channels kept per group."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import fx

from edgefolio_pruner.spatial import AttentionLayer, ChannelGroup

_WEIGHTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten.conv_transpose2d.input,
}


@dataclass(frozen=True)
class Axis:
    """One axis of a weight: its size, and how many of its positions each channel of a group holds."""

    size: int
    held: tuple[tuple[str, int], ...]

    def kept(self, channels: Mapping[str, int], kept: Mapping[str, int]) -> int:
        """Positions that are left."""
        return self.size - sum((channels[group] - kept[group]) * positions for group, positions in self.held)


@dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates per sample of one use of a weight, and the axes along which it shrinks."""

    name: str
    macs: int
    axes: tuple[Axis, ...]

    @property
    def groups(self) -> frozenset[str]:
        """The groups whose channels it holds."""
        return frozenset(group for axis in self.axes for group, _ in axis.held)

    def cost(self, channels: Mapping[str, int], kept: Mapping[str, int]) -> float:
        """Multiply-accumulates with ``kept`` channels per group."""
        cost = float(self.macs)
        for axis in self.axes:
            cost *= axis.kept(channels, kept) / axis.size
        return cost


class CostModel:
    """Cost of the net as a function of the channels kept per group: the sum over its layers."""

    def __init__(self, layers: Sequence[Layer], channels: Mapping[str, int]) -> None:
        self.layers = tuple(layers)
        self.channels = dict(channels)
        self._holding = {group: [layer for layer in self.layers if group in layer.groups] for group in channels}

    def cost(self, kept: Mapping[str, int]) -> float:
        """Per sample, with ``kept`` channels per group."""
        return sum(layer.cost(self.channels, kept) for layer in self.layers)

    def saved(self, kept: Mapping[str, int], group: str, number: int) -> float:
        """What ``number`` channels of ``group`` less save (more, if negative: cost less than nothing)."""
        after = {**kept, group: kept[group] - number}
        return sum(layer.cost(self.channels, kept) - layer.cost(self.channels, after) for layer in self._holding[group])


class Layer(Protocol):
    """One layer's cost."""

    @property
    def groups(self) -> frozenset[str]:
        """The groups whose channels it holds."""

    def cost(self, channels: Mapping[str, int], kept: Mapping[str, int]) -> float:
        """Its cost with ``kept`` of ``channels`` per group."""


def macs_model(graph: fx.Graph, parameters: Mapping[str, torch.Tensor], groups: Sequence[ChannelGroup]) -> CostModel:
    """Multiply-accumulates of a captured graph (one of static size), as a function of the channels kept."""
    return CostModel(layer_costs(graph, parameters, groups), {group.name: group.channels for group in groups})


def attention_costs(layers: Sequence[AttentionLayer], groups: Sequence[ChannelGroup]) -> tuple[LayerCost, ...]:
    """The two products of each attention: queries times keys, and weights times values."""
    costs: list[LayerCost] = []
    for layer in layers:
        for part, rows in ((layer.query, layer.pair_rows()), (layer.value, layer.value_rows())):
            size = sum(len(head) for head in part.indices)
            held = tuple((group.name, layer.heads) for group in groups if _writes_any(group, rows))
            name = f"{part.weight} products of {'queries' if part is layer.query else 'values'}"
            costs.append(LayerCost(name=name, macs=layer.products * size, axes=(Axis(size, held),)))
    return tuple(costs)


def _writes_any(group: ChannelGroup, rows: Collection[tuple[str, int]]) -> bool:
    return any((part.parameter, index) in rows for part in group.writers if part.axis == 0 for index in part.indices[0])


def layer_costs(
    graph: fx.Graph, parameters: Mapping[str, torch.Tensor], groups: Sequence[ChannelGroup]
) -> tuple[LayerCost, ...]:
    """The convolutions and linear layers of a captured graph."""
    holders: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for group in groups:
        for part in (*group.writers, *group.readers):
            holders.setdefault((part.parameter, part.axis), []).append((group.name, len(part.indices[0])))
    layers: list[LayerCost] = []
    for node in graph.nodes:
        if node.op != "call_function" or not (node.target in _WEIGHTED or node.target is torch.ops.aten.linear.default):
            continue
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        name = str(weight.target)
        shape = tuple(node.meta["val"].shape)
        numbers = [int(size) for size in (shape[2:] if node.target in _WEIGHTED else shape[1:-1])]
        positions = 1
        for size in numbers:
            positions *= size
        axes = tuple(
            Axis(parameters[name].shape[axis], tuple(dict.fromkeys(holders.get((name, axis), ())))) for axis in (0, 1)
        )
        layers.append(LayerCost(name=name, macs=parameters[name].numel() * positions, axes=axes))
    return tuple(layers)
