"""Roles of convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.operators.operator import Operator
from edgefolio_pruner.spatial.roles import Contraction, Effect, Input, Mixer, Move
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS"]


def _per_axis(value: Any, axes: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [int(item) for item in (values * axes if len(values) == 1 else values)]


def _weight_and_bias(node: fx.Node) -> tuple[fx.Node, fx.Node | None] | None:
    weight, bias = argument(node, "weight"), argument(node, "bias")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    if bias is not None and (not isinstance(bias, fx.Node) or bias.op != "get_attr"):
        return None
    return weight, bias


def _linear(builder: Builder, node: fx.Node) -> None:
    source = argument(node, "input")
    held = _weight_and_bias(node)
    if held is None or source not in builder.channels:
        builder.set_barrier(node, "weights computed from activations")
        return
    channels = builder.channels[source]
    outputs, inputs = builder.shape(held[0])
    if channels.size == channels.shape[-1]:
        slots = np.broadcast_to(np.arange(channels.size, dtype=np.int64), (inputs,))
    elif _is_input(builder, source):
        # A sequence [N, T, C], whose channels were taken to be on axis 1: all of an input stays, so any slot will do.
        slots = np.zeros(inputs, dtype=np.int64)
    else:
        builder.set_barrier(node, "linear layer along an axis other than that of the channels")
        return
    shape = builder.shape(node)
    positions = int(np.prod([size for size in shape[1:-1] if size < LARGEST_STATIC_SIZE], dtype=np.int64))
    exposed = np.zeros(1, dtype=bool)
    rows = builder.fresh(*([1] * (len(shape) - 1)), outputs)
    _set(builder, node, Contraction("linear", source, *held, 1, slots[None], outputs, exposed, positions), rows)


def _is_input(builder: Builder, node: fx.Node) -> bool:
    """Whether the value is an input of the network in another arrangement."""
    while isinstance(role := builder.roles.get(node), Move) and role.effect is Effect.KEEPS and len(role.sources) == 1:
        node = role.sources[0]
    return isinstance(role, Input)


def _slots_of_input(builder: Builder, node: fx.Node) -> NDArray[np.bool_]:
    """Which slots of the value are those of an input of the network, in another arrangement or padded; else none."""
    role = builder.roles.get(node)
    if isinstance(role, Input):
        return np.ones(builder.channels[node].size, dtype=bool)
    followed = isinstance(role, Move) and role.effect in (Effect.KEEPS, Effect.PADS) and len(role.sources) == 1
    if not followed or not isinstance(role, Move) or len(role.index) != 1:
        return np.zeros(builder.channels[node].size, dtype=bool)
    index = role.index[0].ravel()
    found: NDArray[np.bool_] = (index >= 0) & _slots_of_input(builder, role.sources[0])[index]
    return found


def _convolution(builder: Builder, node: fx.Node) -> None:
    source = argument(node, "input")
    held = _weight_and_bias(node)
    rank = len(builder.shape(node))
    axes = int(operator_name(node)[-2])
    if held is None or source not in builder.channels:
        builder.set_barrier(node, "weights computed from activations")
        return
    channels = builder.channels[source]
    groups = int(argument(node, "groups"))
    weight_shape = builder.shape(held[0])
    sizes_in, sizes_out = builder.shape(source)[2:], builder.shape(node)[2:]
    inputs = builder.shape(source)[1]
    if rank == axes + 2 and channels.size == channels.shape[1]:
        slots = np.broadcast_to(np.arange(channels.size, dtype=np.int64), (inputs,)).reshape(groups, -1)
    elif rank == axes + 2 and groups == 1 and (of_input := _slots_of_input(builder, source)).any():
        # A signal [N, length], whose channels were taken to be on axis 1, as a map of one channel: all of it stays.
        builder.pin(channels, "network input")
        slots = np.full((1, inputs), int(np.argmax(of_input)), dtype=np.int64)
    else:
        _along_channels(builder, node, source)
        return
    outputs = builder.shape(node)[1]
    transposed = "transpose" in operator_name(node)
    kernel = weight_shape[2:]
    if transposed:
        exposed = np.ones(int(np.prod(kernel)), dtype=bool)
        positions = _positions(sizes_in)
    else:
        exposed = _exposed_taps(
            kernel=kernel,
            sizes_in=sizes_in,
            sizes_out=sizes_out,
            stride=_per_axis(argument(node, "stride"), axes),
            padding=argument(node, "padding"),
            dilation=_per_axis(argument(node, "dilation"), axes),
        )
        positions = _positions(sizes_out)
    kind = "conv_transpose" if transposed else "conv"
    rows = builder.fresh(1, outputs, *([1] * axes))
    role = Contraction(kind, source, *held, groups, slots, outputs // groups, exposed, positions)
    _set(builder, node, role, rows)


def _along_channels(builder: Builder, node: fx.Node, source: fx.Node) -> None:
    """Efficient channel attention: the channels lie on an axis of positions, one number each."""
    channels, shape = builder.channels[source], builder.shape(node)
    axes = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
    same = shape[1:] == builder.shape(source)[1:] == channels.shape[1:]
    if not same or len(axes) != 1 or channels.shape[0] != 1:
        builder.set_barrier(node, "convolution along the axis of the channels")
        return
    builder.roles[node] = Mixer(source, axes[0])
    builder.channels[node] = builder.fresh(*channels.shape)


def _set(builder: Builder, node: fx.Node, role: Contraction, rows: np.ndarray[Any, Any]) -> None:
    read = builder.channels[role.source].ravel()[role.columns]
    if role.is_depthwise:
        builder.tie(read, rows.reshape(role.groups, role.outputs_per_group))
    # The rows of one weight in all its call sites are the same channels, and so are its columns.
    builder.tie_weight(f"{role.kind} {role.weight.target}", rows.ravel(), read.ravel())
    builder.roles[node] = role
    builder.channels[node] = rows


def _positions(sizes: tuple[int, ...]) -> int:
    return int(np.prod([size for size in sizes if size < LARGEST_STATIC_SIZE], dtype=np.int64))


def _exposed_taps(
    *,
    kernel: tuple[int, ...],
    sizes_in: tuple[int, ...],
    sizes_out: tuple[int, ...],
    stride: list[int],
    padding: Any,
    dilation: list[int],
) -> NDArray[np.bool_]:
    """Which taps of the kernel read zero padding at some position of the result."""
    if isinstance(padding, str):
        totals = [step * (taps - 1) if padding == "same" else 0 for step, taps in zip(dilation, kernel, strict=True)]
        before = [total // 2 for total in totals]
    else:
        before = _per_axis(padding, len(kernel))
        totals = [2 * amount for amount in before]
    result = np.zeros(kernel, dtype=bool)
    for axis, taps in enumerate(kernel):
        offset = np.arange(taps) * dilation[axis] - before[axis]
        if sizes_in[axis] >= LARGEST_STATIC_SIZE or sizes_out[axis] >= LARGEST_STATIC_SIZE:
            exposed = (offset < 0) | ((offset > 0) & (totals[axis] > 0))
        else:
            exposed = (offset < 0) | (offset + stride[axis] * (sizes_out[axis] - 1) >= sizes_in[axis])
        shape = [1] * len(kernel)
        shape[axis] = taps
        result |= exposed.reshape(shape)
    return result.ravel()


OPERATORS = {
    "linear": Operator(_linear),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), Operator(_convolution)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), Operator(_convolution)),
}
