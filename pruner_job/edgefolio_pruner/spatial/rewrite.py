"""Rewriter of a program into the smaller network of the kept channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.layers import new_layer
from edgefolio_pruner.spatial.operators.registry import operator_of
from edgefolio_pruner.spatial.passes.removal_plan import RemovalPlan, pairs_of
from edgefolio_pruner.spatial.roles import Attention, Barrier, Contraction, Exchange, Map, Mixer, Move, Operand, Output

__all__ = ["WriteExchange", "rewrite"]

aten = torch.ops.aten
#: Writes an exchange: the value with what this worker keeps of its result; ``None`` if it keeps nothing.
WriteExchange = Callable[[Writer, fx.Node, Exchange], fx.Node | None]


def rewrite(
    plan: RemovalPlan, *, exchange: WriteExchange | None = None, sent: Callable[[], list[fx.Node]] = list
) -> fx.GraphModule:
    """The smaller network as a graph module of its own.

    In a network with exchanges ``exchange`` writes them, and ``sent`` gives the values that go out in front of the
    outputs of the network.
    """
    writer = Writer(plan)
    for node in plan.structure.program.nodes:
        if node.op == "output" and exchange is not None:
            writer.graph.output((*sent(), *[writer.new(source) for source in node.all_input_nodes]))
        elif exchange is not None and isinstance(plan.structure.roles.get(node), Exchange):
            role = plan.structure.roles[node]
            assert isinstance(role, Exchange)
            value = exchange(writer, node, role)
            if value is not None:
                writer.values[node] = value
        else:
            _write(writer, node)
    writer.graph.eliminate_dead_code()
    module = fx.GraphModule(writer.root, writer.graph)
    _drop_unread(module)
    module.graph.lint()
    module.eval()
    return module


def _write(writer: Writer, node: fx.Node) -> None:
    if node.op == "placeholder":
        writer.values[node] = writer.graph.placeholder(node.name)
        return
    if node.op == "output":
        writer.graph.output(fx.map_arg(node.args[0], writer.new))
        return
    role = writer.plan.structure.roles.get(node)
    if node.op == "get_attr":
        return
    if role is None:
        writer.values[node] = _write_size(writer, node)
        return
    if writer.plan.is_absent(node):
        return
    if isinstance(role, Contraction):
        writer.values[node] = _write_layer(writer, node, role)
    elif isinstance(role, Map):
        writer.values[node] = _write_map(writer, node, role)
    elif isinstance(role, Move):
        operator = operator_of(node)
        assert operator is not None, node
        assert operator.rewrite is not None, node
        writer.values[node] = operator.rewrite(writer, node, role)
    elif isinstance(role, Attention):
        writer.values[node] = _write_attention(writer, role)
    elif isinstance(role, Mixer):
        writer.values[node] = _write_mixer(writer, node, role)
    elif isinstance(role, (Barrier, Output)):
        writer.values[node] = writer.copy(node)
    else:
        raise AssertionError(node)


def _write_size(writer: Writer, node: fx.Node) -> fx.Node:
    if operator_name(node) == "sym_size":
        source = node.args[0]
        assert isinstance(source, fx.Node)
        first = next(n for n in writer.program.nodes if n.op == "placeholder")
        if writer.program.size(node) == writer.program.shapes[first][0]:
            return writer.batch_size()
    return writer.copy(node)


def _write_layer(writer: Writer, node: fx.Node, role: Contraction) -> fx.Node:
    weight_name = str(role.weight.target)
    shared = writer.uses[weight_name] > 1
    layer = new_layer(writer.plan, node, role, shared=shared)
    if layer.unchanged:
        return writer.copy(node)
    bias_name = str(role.bias.target) if role.bias is not None else weight_name.removesuffix("weight") + "bias"
    bias = None
    if layer.bias is not None:
        bias = writer.hold(bias_name, layer.bias, layer.bias.numpy().tobytes())
    if layer.weight is None:
        return _write_constant(writer, node, bias)
    # All call sites of one weight keep the same rows and columns.
    weight = writer.hold(weight_name, layer.weight, role.kind, own=True)
    replaced: dict[str, Any] = {"weight": weight, "bias": bias}
    if role.kind != "linear" and layer.groups != role.groups:
        replaced["groups"] = layer.groups
    return writer.copy(node, **replaced)


def _write_constant(writer: Writer, node: fx.Node, bias: fx.Node | None) -> fx.Node:
    """A layer without inputs is its bias everywhere."""
    shape: list[Any] = list(writer.program.shapes[node])
    channels = writer.plan.structure.channels[node]
    axis = next((axis for axis in range(channels.ndim) if channels.shape[axis] > 1), 1)
    if channels.shape[axis] > 1:
        shape[axis] = int(writer.plan.along(node, axis).sum())
    view = [1] * len(shape)
    view[axis] = shape[axis]
    writer.constants[node] = shape[1:]
    return writer.call(aten.reshape.default, bias, view)


def _write_mixer(writer: Writer, node: fx.Node, role: Mixer) -> fx.Node:
    """A mixer over all channels, constants filled in; the kept ones of its result."""
    plan, axis = writer.plan, role.axis
    needed = plan.needs.slots[role.source].ravel()
    here = plan.mask(role.source).ravel()
    full = writer.values.get(role.source)
    if full is None or not needed.all():
        fill = plan.constants.values[role.source]
        dtype = writer.program.constant(argument(node, "weight")).dtype
        held = writer.hold(f"channel_constants.{node.name}", torch.from_numpy(np.ascontiguousarray(fill)).to(dtype))
        shape: list[Any] = [writer.batch_size(), *fill.shape[1:]]
        filled = writer.call(aten.expand.default, held, shape)
        if full is None:
            full = filled
        else:
            # Needed channels are taken from what is there, the others from the constants behind it.
            order = np.where(needed, np.cumsum(here) - 1, int(here.sum()) + np.arange(len(here)))
            index = writer.hold(f"channel_orders.{node.name}_source", torch.from_numpy(order))
            joined = writer.call(aten.cat.default, [full, filled], axis)
            full = writer.call(aten.index_select.default, joined, axis, index)
    result = writer.copy(node, input=full)
    kept = plan.mask(node).ravel()
    if kept.all():
        return result
    index = writer.hold(f"channel_orders.{node.name}", torch.from_numpy(np.flatnonzero(kept)))
    return writer.call(aten.index_select.default, result, axis, index)


def _write_attention(writer: Writer, role: Attention) -> fx.Node:
    """Heads split, ``scaled_dot_product_attention`` with the scale of the original width, and heads joined."""
    plan = writer.plan
    structure = plan.structure
    values = plan.keep[role.by_head(structure.channels[role.value], writer.program.shapes[role.value][-1])]
    pairs = pairs_of(structure, role, plan.keep)
    alive = pairs.any(axis=1) | values.any(axis=1)
    heads = int(alive.sum())
    split = []
    for source, kept in zip(role.sources, (pairs, pairs, values), strict=True):
        sizes = [heads, int(kept.sum()) // heads]
        by_head = writer.call(aten.unflatten.int, writer.new(source), 2, sizes)
        split.append(writer.call(aten.transpose.int, by_head, 1, 2))
    mask = role.mask
    if mask is not None and mask.op == "get_attr" and len(writer.program.shapes[mask]) > 2:
        mask = writer.constant_slice(mask, len(writer.program.shapes[mask]) - 3, alive)
    elif mask is not None:
        mask = writer.new(mask)
    result = writer.graph.call_function(
        aten.scaled_dot_product_attention.default, (*split, mask, 0.0, role.causal), {"scale": role.scale}
    )
    return writer.call(aten.flatten.using_ints, writer.call(aten.transpose.int, result, 1, 2), 2, 3)


def _write_map(writer: Writer, node: fx.Node, role: Map) -> fx.Node:
    replaced = {
        operand.node: _operand_slice(writer, node, operand)
        for operand in role.operands
        if operand.node.op == "get_attr"
    }
    shape = writer.program.shapes[node]
    sources = [operand.node for operand in role.operands if operand.node not in replaced]
    # The function broadcasts a constant if another operand has the full shape; alone it stays small.
    full = [s for s in sources if s not in writer.constants and writer.program.shapes[s] == shape]
    small = [s for s in sources if s in writer.constants]
    if small and not full:
        same = len(small) == len(sources) and all(writer.program.shapes[s] == shape for s in small)
        if same and all(_is_even(writer, node, operand) for operand in role.operands if operand.node in replaced):
            writer.constants[node] = writer.constants[small[0]]
        else:
            small = []
    arguments, keywords = fx.map_arg(
        (node.args, node.kwargs),
        lambda s: replaced[s] if s in replaced else writer.values[s] if s in small else writer.new(s),
    )
    assert callable(node.target)
    return writer.graph.call_function(node.target, arguments, keywords)


def _is_even(writer: Writer, node: fx.Node, operand: Operand) -> bool:
    """Whether a constant operand is the same at all positions, so that a small result stays small."""
    lengths = writer.plan.structure.channels[node].shape
    return all(size == 1 or lengths[axis] > 1 for axis, size in enumerate(operand.view))


def _operand_slice(writer: Writer, node: fx.Node, operand: Operand) -> fx.Node:
    """A constant operand with the positions that stay in the result."""
    channels = writer.plan.structure.channels[node]
    tensor = writer.program.constant(operand.node).reshape(operand.view)
    key = b""
    for axis, length in enumerate(channels.shape):
        kept = writer.plan.along(node, axis)
        if length > 1 and operand.view[axis] > 1 and not kept.all():
            tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(kept)))
            key += bytes([axis]) + kept.tobytes()
    if not key:
        return writer.new(operand.node)
    original = writer.program.shapes[operand.node]
    trailing = operand.view[len(operand.view) - len(original) :] == original
    tensor = tensor.reshape(tensor.shape[len(operand.view) - len(original) :]) if trailing else tensor.reshape(-1)
    return writer.hold(str(operand.node.target), tensor, key)


def _drop_unread(module: fx.GraphModule) -> None:
    """Remove weights that no node reads."""
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in list(module.state_dict()):
        if name not in read:
            *path, leaf = name.split(".")
            holder = module.get_submodule(".".join(path))
            delattr(holder, leaf)
