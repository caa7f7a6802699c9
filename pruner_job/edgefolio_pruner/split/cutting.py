"""Places at which a network can be cut in two: the part in front is divided by rows, the part behind by channels.

A place is a map that everything behind it depends on, and on nothing in front of it besides: in a residual network the
end of a block. Between two layers the smallest such map is taken, as all of it travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgefolio_pruner.spatial.graph.capture import CapturedModel, assign_tensor
from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE, shape_of

__all__ = ["Cut", "cuts_of"]

_LAYERS = ("conv2d", "linear")


@dataclass(frozen=True, eq=False)
class Cut:
    """A network in two parts: ``behind`` takes what ``before`` gives, of this ``shape`` without the batch.

    ``until`` names the last layer in front, ``layers`` counts those up to it. Both parts name their weights as the
    whole does.
    """

    until: str
    layers: int
    shape: tuple[int, ...]
    before: CapturedModel
    behind: CapturedModel


@dataclass(frozen=True)
class _Place:
    node: fx.Node
    until: str
    layers: int
    size: int


def cuts_of(captured: CapturedModel) -> tuple[Cut, ...]:
    """All cuts behind a layer and in front of another, in the order of the network."""
    best: dict[int, _Place] = {}
    for place in _places(captured):
        # Of equal sizes the later one: less is left to be computed by everybody.
        if place.layers not in best or place.size <= best[place.layers].size:
            best[place.layers] = place
    return tuple(_cut(captured, place) for place in best.values())


def _places(captured: CapturedModel) -> list[_Place]:
    nodes = list(captured.graph_module.graph.nodes)
    activations = {node for node in nodes if node.op == "placeholder"}
    for node in nodes:
        is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
        if is_tensor and any(source in activations for source in node.all_input_nodes):
            activations.add(node)
    last = {node: max((nodes.index(user) for user in node.users), default=-1) for node in activations}
    layers, until, total = 0, "", sum(operator_name(node) in _LAYERS for node in nodes)
    found = []
    for index, node in enumerate(nodes):
        if operator_name(node) in _LAYERS:
            layers, until = layers + 1, str(argument(node, "weight").target).removesuffix(".weight")
        if node not in activations or node.op == "placeholder" or not 0 < layers < total:
            continue
        shape = shape_of(node.meta["val"], captured.tracing_sizes)
        is_map = len(shape) == 4 and all(size < LARGEST_STATIC_SIZE for size in shape[1:]) and shape[2] > 1
        behind = {other for other in activations if nodes.index(other) <= index < last[other]}
        if is_map and behind == {node} and _sizes_are_of_the_batch(nodes[index + 1 :], set(nodes[: index + 1])):
            found.append(_Place(node, until, layers, int(torch.Size(shape[1:]).numel())))
    return found


def _sizes_are_of_the_batch(behind: list[fx.Node], before: set[fx.Node]) -> bool:
    """Whether all numbers that the part behind takes from the part in front are the size of the batch."""
    taken = {source for node in behind for source in node.all_input_nodes if source in before}
    return all(
        _is_batch_size(source)
        for source in taken
        if source.op == "call_function" and not isinstance(source.meta.get("val"), torch.Tensor)
    )


def _is_batch_size(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.sym_size.int and bool(node.args[1] == 0)


def _cut(captured: CapturedModel, place: _Place) -> Cut:
    graph = captured.graph_module.graph
    shape = shape_of(place.node.meta["val"], captured.tracing_sizes)[1:]
    front = fx.Graph()
    mapped: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        mapped[node] = front.node_copy(node, lambda source: mapped[source])
        if node is place.node:
            break
    front.output(mapped[place.node])
    front.eliminate_dead_code()
    back = fx.Graph()
    entry = back.placeholder("boundary")
    entry.meta.update(place.node.meta)
    copies: dict[fx.Node, fx.Node] = {place.node: entry}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            if _is_batch_size(node):
                copies[node] = back.call_function(torch.ops.aten.sym_size.int, (entry, 0))
                copies[node].meta.update(node.meta)
            else:
                for source in node.all_input_nodes:
                    copied(source)
                copies[node] = back.node_copy(node, lambda source: copies[source])
        return copies[node]

    for node in graph.nodes:
        if node.op == "output":
            copied(node)
    return Cut(
        until=place.until,
        layers=place.layers,
        shape=tuple(shape),
        before=_part(captured, front, captured.input_shapes),
        behind=_part(captured, back, (tuple(shape),)),
    )


def _part(captured: CapturedModel, graph: fx.Graph, shapes: tuple[tuple[int, ...], ...]) -> CapturedModel:
    """A captured model of its own, that shares the weights."""
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    root = torch.nn.Module()
    held: Mapping[str, torch.Tensor] = captured.graph_module.state_dict(keep_vars=True)
    for name, tensor in held.items():
        if name in read:
            assign_tensor(root, name, tensor.detach(), trainable=isinstance(tensor, torch.nn.Parameter))
    module = fx.GraphModule(root, graph)
    module.meta.update(captured.graph_module.meta)
    aliases = {alias: name for alias, name in captured.aliases.items() if name in read}
    return CapturedModel(module, shapes, aliases, captured.tracing_sizes, captured.dynamic_size, captured.reads_as)
