"""Roles of elementwise operators, batch norm in evaluation mode and parametric activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, operator_name, tensor_inputs
from edgefolio_pruner.spatial.operators.operator import Operator
from edgefolio_pruner.spatial.positions import Positions
from edgefolio_pruner.spatial.roles import Map, Operand, Zeros
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS"]

#: Elementwise functions of which every finite operand gives a finite result.
_FINITE = (
    "relu", "relu6", "silu", "hardswish", "hardsigmoid", "hardtanh", "clamp", "clamp_min", "clamp_max", "gelu",
    "sigmoid", "tanh", "elu", "selu", "celu", "leaky_relu", "softplus", "softsign", "softshrink", "hardshrink",
    "tanhshrink", "mish", "log_sigmoid", "neg", "abs", "square", "erf", "sin", "cos", "atan", "threshold", "sign",
    "add", "sub", "rsub", "mul", "maximum", "minimum", "floor", "ceil", "round", "lerp",
)  # fmt: skip
#: Elementwise functions that may give an infinity or no number.
_PARTIAL = ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "pow", "div", "asinh", "sinh", "cosh")
_ABSORBING = ("mul",)


def _elementwise(builder: Builder, node: fx.Node) -> None:
    name = operator_name(node)
    sources = tensor_inputs(node)
    value = node.meta["val"]
    scalar_nodes = [source for source in node.all_input_nodes if source not in sources]
    if scalar_nodes or not value.dtype.is_floating_point or not sources:
        builder.set_barrier(node, f"operator {node.target} with a computed number")
        return
    rank = len(builder.shape(node))
    operands = []
    for source in sources:
        shape = builder.shape(source)
        operands.append(Operand(source, (1,) * (rank - len(shape)) + shape))
    zeros = Zeros.ORDINARY
    if len(sources) == 2 and name in _ABSORBING:
        zeros = Zeros.ABSORB
    elif len(sources) == 2 and name == "div" and node.args[0] is sources[0]:
        zeros = Zeros.NUMERATOR
    if name == "div" and argument(node, "rounding_mode") is not None:
        zeros = Zeros.ORDINARY
    finite = name in _FINITE or (name == "div" and len(sources) == 1 and node.args[0] is sources[0])
    if name == "pow" and len(sources) == 1 and node.args[0] is sources[0]:
        exponent = node.args[1]
        finite = isinstance(exponent, int) and exponent > 0
    _set_map(builder, node, Map(tuple(operands), _call(node, sources), zeros, finite))


def _call(node: fx.Node, sources: tuple[fx.Node, ...]) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    def evaluate(values: list[torch.Tensor]) -> torch.Tensor:
        given = dict(zip(sources, values, strict=True))
        arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda source: given[source])
        assert callable(node.target)
        result = node.target(*arguments, **keywords)
        assert isinstance(result, torch.Tensor)
        return result

    return evaluate


def _cast(builder: Builder, node: fx.Node) -> None:
    sources = tensor_inputs(node)
    if node.meta["val"].dtype not in (torch.float32, torch.float64) or sources[0] not in builder.channels:
        builder.set_barrier(node, f"conversion to {node.meta['val'].dtype}")
        return
    _set_map(builder, node, Map((Operand(sources[0], builder.shape(sources[0])),), lambda values: values[0]))


def _along_axis_one(builder: Builder, node: fx.Node, weight: fx.Node) -> Operand:
    rank = len(builder.shape(node))
    size = int(np.prod(builder.shape(weight)))
    return Operand(weight, (1, size) + (1,) * (rank - 2))


def _batch_norm(builder: Builder, node: fx.Node) -> None:
    source = argument(node, "input")
    names = ("weight", "bias", "running_mean", "running_var")
    given = {name: argument(node, name) for name in names}
    known = all(value is None or (isinstance(value, fx.Node) and value.op == "get_attr") for value in given.values())
    if argument(node, "training") or not known or given["running_mean"] is None or source not in builder.channels:
        builder.set_barrier(node, "batch norm with statistics of the batch")
        return
    present = [name for name in names if given[name] is not None]
    operands = [Operand(source, builder.shape(source))]
    operands += [_along_axis_one(builder, node, given[name]) for name in present]
    epsilon = float(argument(node, "eps"))

    def evaluate(values: list[torch.Tensor]) -> torch.Tensor:
        held: dict[str, Any] = dict(zip(present, values[1:], strict=True))
        result: torch.Tensor = (values[0] - held["running_mean"]) / torch.sqrt(held["running_var"] + epsilon)
        if "weight" in held:
            result = result * held["weight"]
        return result + held["bias"] if "bias" in held else result

    scaled = Zeros.SCALE if "weight" in present else Zeros.ORDINARY
    _set_map(builder, node, Map(tuple(operands), evaluate, scaled))


def _prelu(builder: Builder, node: fx.Node) -> None:
    source, weight = argument(node, "self"), argument(node, "weight")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or source not in builder.channels:
        builder.set_barrier(node, "a slope computed from activations")
        return
    operands = (Operand(source, builder.shape(source)), _along_axis_one(builder, node, weight))

    def evaluate(values: list[torch.Tensor]) -> torch.Tensor:
        negative: torch.Tensor = values[0] * values[1]
        return torch.where(values[0] >= 0, values[0], negative)

    _set_map(builder, node, Map(operands, evaluate))


def _set_map(builder: Builder, node: fx.Node, role: Map) -> None:
    """The result's channels; operands that carry the same positions carry the same channels."""
    shape = builder.shape(node)
    described = []
    for operand in role.operands:
        if operand.node.op == "get_attr":
            continue
        described.append((operand, builder.channels[operand.node].reshape(_lengths(builder, operand))))
    if not described:
        builder.set_barrier(node, "a function of constants")
        return
    lengths = np.broadcast_shapes(*[channels.shape for _, channels in described])
    for operand, channels in described:
        for axis, length in enumerate(lengths):
            unlike = length > 1 and channels.shape[axis] == 1 and operand.view[axis] > 1
            if unlike and any(_changes_along(other, axis) for _, other in described):
                builder.set_barrier(node, "operands whose channels lie on different axes")
                return
    # An axis that one operand repeats does not tie: that operand is merely read there.
    complete = [
        np.broadcast_to(channels, lengths)
        for operand, channels in described
        if all(operand.view[axis] == shape[axis] for axis in range(len(shape)) if lengths[axis] > 1)
    ]
    if complete:
        result = complete[0]
        for other in complete[1:]:
            builder.tie(result, other)
    elif all(length == 1 for length in lengths):
        result = described[0][1]
    else:
        result = builder.fresh(*lengths)
        builder.pin(result, "channels spread by broadcasting")
        for _, channels in described:
            builder.pin(channels, "channels spread by broadcasting")
    if not role.finite:
        # An unread slot may hold any number; here any number must give a finite result.
        for _, channels in described:
            builder.pin(channels, f"operator {node.target} is not finite everywhere")
        builder.pin(result, f"operator {node.target} is not finite everywhere")
    builder.roles[node] = role
    builder.channels[node] = result


def _changes_along(channels: Positions, axis: int) -> bool:
    return bool((channels != np.take(channels, [0], axis=axis)).any())


def _lengths(builder: Builder, operand: Operand) -> tuple[int, ...]:
    channels = builder.channels[operand.node]
    return (1,) * (len(operand.view) - channels.ndim) + channels.shape


OPERATORS = {
    **dict.fromkeys((*_FINITE, *_PARTIAL), Operator(_elementwise)),
    **dict.fromkeys(("to", "_to_copy", "type_as"), Operator(_cast)),
    "batch_norm": Operator(_batch_norm),
    **dict.fromkeys(("prelu", "_prelu_kernel"), Operator(_prelu)),
}
