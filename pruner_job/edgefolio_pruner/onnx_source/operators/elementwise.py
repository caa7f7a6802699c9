"""Elementwise operators: arithmetic, comparisons and activations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgefolio_pruner.onnx_source.graph import Array, Node, is_scalar
from edgefolio_pruner.onnx_source.operators import host
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value, number, plain, tensor_of

__all__ = ["OPERATORS"]

_NEAR = 1e-6
#: Types of torch by NumPy's.
_TYPES = {"b": torch.bool, "i8": torch.int64, "i4": torch.int32, "u1": torch.uint8, "i1": torch.int8}


def _operands(given: tuple[Value, ...]) -> list[Any]:
    """Operands as tensors and plain numbers, of which at least one is a tensor; a number may add leading axes."""
    like = next(value for value in given if isinstance(value, torch.Tensor))
    found: list[Any] = []
    for value in given:
        scalar = isinstance(value, np.ndarray) and is_scalar(value) and value.ndim <= like.ndim
        found.append(number(value) if scalar and isinstance(value, np.ndarray) else tensor_of(value, like))
    return found


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., torch.Tensor]:
    def run(_node: Node, *given: Value) -> torch.Tensor:
        result: torch.Tensor = function(*_operands(given))
        return result

    return run


def _of_several(function: Callable[[Any, Any], Any]) -> Callable[..., torch.Tensor]:
    """Operators of any number of operands."""

    def run(_node: Node, *given: Value) -> torch.Tensor:
        result: torch.Tensor = reduce(function, _operands(given))
        return result

    return run


def _mean(node: Node, *given: Value) -> torch.Tensor:
    return _of_several(operator.add)(node, *given) / len(given)


def _larger(one: Any, other: Any) -> torch.Tensor:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.maximum(one, other)
    return one.clamp(min=other) if isinstance(one, torch.Tensor) else other.clamp(min=one)


def _smaller(one: Any, other: Any) -> torch.Tensor:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.minimum(one, other)
    return one.clamp(max=other) if isinstance(one, torch.Tensor) else other.clamp(max=one)


def _divide(_node: Node, *given: Value) -> torch.Tensor:
    dividend, divisor = _operands(given)
    whole = all(isinstance(one, int) or (isinstance(one, torch.Tensor) and not one.is_floating_point())
                for one in (dividend, divisor))  # fmt: skip
    result: torch.Tensor = torch.div(dividend, divisor, rounding_mode="trunc") if whole else dividend / divisor
    return result


def _power(_node: Node, *given: Value) -> torch.Tensor:
    base, exponent = _operands(given)
    # A whole exponent is one: its power is finite everywhere.
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    result: torch.Tensor = torch.pow(base, exponent)
    return result


def _remainder(node: Node, *given: Value) -> torch.Tensor:
    one, other = _operands(given)
    result: torch.Tensor = torch.fmod(one, other) if node.attributes.get("fmod", 0) else torch.remainder(one, other)
    return result


def _where(_node: Node, condition: Value, one: Value, other: Value) -> torch.Tensor:
    like = next((value for value in (one, other) if isinstance(value, torch.Tensor)), None)
    if like is None:
        like = torch.zeros(())
    chosen = condition if isinstance(condition, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(condition))
    return torch.where(chosen, tensor_of(one, like), tensor_of(other, like))


def _cast(node: Node, value: torch.Tensor) -> torch.Tensor:
    kind = host.number_kind(node, node.attributes["to"])
    if kind.kind == "f":
        if kind != np.float32:
            raise node.refused("computes in float64", remedy="Export the network in float32.")
        return value if value.is_floating_point() else value.to(torch.get_default_dtype())
    return value.to(_TYPES.get(kind.str[1:], torch.bool))


def _host_cast(node: Node, value: Array) -> Array:
    return host.cast(node, value, host.number_kind(node, node.attributes["to"]))


def _clip(node: Node, value: torch.Tensor, low: Value | None = None, high: Value | None = None) -> torch.Tensor:
    bounds: list[Any] = []
    for key, given in (("min", low), ("max", high)):
        bound: Any = node.attributes.get(key)
        if given is not None:
            bound = number(given) if isinstance(given, np.ndarray) else given
        # As of old, an open side is the largest number.
        bounds.append(None if isinstance(bound, float) and abs(bound) > 3e38 else bound)
    if bounds == [None, None]:
        return value
    if bounds == [0.0, None]:
        return functional.relu(value)
    return torch.clamp(value, *bounds)


def _host_clip(node: Node, value: Array, low: Array | None = None, high: Array | None = None) -> Array:
    del node
    if low is not None:
        value = np.maximum(value, low)
    return value if high is None else np.asarray(np.minimum(value, high))


def _unary(function: Callable[..., Any]) -> Callable[[Node, torch.Tensor], torch.Tensor]:
    def run(_node: Node, value: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = function(value)
        return result

    return run


def _with(key: str, default: float, function: Callable[[torch.Tensor, float], torch.Tensor]) -> Any:
    """An activation with one setting."""

    def run(node: Node, value: torch.Tensor) -> torch.Tensor:
        return function(value, float(node.attributes.get(key, default)))

    return run


def _hard_sigmoid(node: Node, value: torch.Tensor) -> torch.Tensor:
    slope, shift = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    if abs(slope - 1 / 6) < _NEAR and abs(shift - 0.5) < _NEAR:
        return functional.hardsigmoid(value)
    return torch.clamp(value * slope + shift, 0.0, 1.0)


def _selu(node: Node, value: torch.Tensor) -> torch.Tensor:
    alpha, gamma = node.attributes.get("alpha"), node.attributes.get("gamma")
    standard = all(
        given is None or abs(given - usual) < _NEAR
        for given, usual in ((alpha, 1.6732632423543772), (gamma, 1.0507009873554805))
    )
    return (
        functional.selu(value)
        if standard
        else float(gamma or 1.0507009) * functional.elu(value, float(alpha or 1.6732632))
    )


def _gelu(node: Node, value: torch.Tensor) -> torch.Tensor:
    return functional.gelu(value, approximate=node.attributes.get("approximate", "none"))


def _identity(_node: Node, value: Value, *_: Value | None) -> Value:
    return value


_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "Relu": functional.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Atan": torch.atan,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "HardSwish": functional.hardswish,
    "Mish": functional.mish,
    "Swish": functional.silu,
}

OPERATORS: dict[str, Operator] = {
    "Add": plain(_of_several(operator.add), host.elementwise(np.add, operator.add)),
    "Sub": plain(_binary(operator.sub), host.elementwise(np.subtract, operator.sub)),
    "Mul": plain(_of_several(operator.mul), host.elementwise(np.multiply, operator.mul)),
    "Sum": plain(_of_several(operator.add)),
    "Mean": plain(_mean),
    "Div": plain(_divide, host.divided),
    "Pow": plain(_power, host.elementwise(np.power, operator.pow)),
    "Mod": plain(_remainder, host.elementwise(np.mod, operator.mod)),
    "Max": plain(_of_several(_larger), host.elementwise(np.maximum, torch.sym_max)),
    "Min": plain(_of_several(_smaller), host.elementwise(np.minimum, torch.sym_min)),
    "Equal": plain(_binary(operator.eq), host.elementwise(np.equal, operator.eq)),
    "Less": plain(_binary(operator.lt), host.elementwise(np.less, operator.lt)),
    "LessOrEqual": plain(_binary(operator.le), host.elementwise(np.less_equal, operator.le)),
    "Greater": plain(_binary(operator.gt), host.elementwise(np.greater, operator.gt)),
    "GreaterOrEqual": plain(_binary(operator.ge), host.elementwise(np.greater_equal, operator.ge)),
    "And": plain(_binary(operator.and_), host.elementwise(np.logical_and)),
    "Or": plain(_binary(operator.or_), host.elementwise(np.logical_or)),
    "Not": plain(_unary(torch.logical_not), host.elementwise(np.logical_not, operator.not_)),
    "Where": plain(_where, lambda _node, chosen, one, other: np.where(chosen.astype(bool), one, other)),
    "Cast": plain(_cast, _host_cast),
    "Clip": plain(_clip, _host_clip),
    "Identity": plain(_identity, _identity),
    "Dropout": plain(_identity, _identity),
    "Neg": plain(_unary(torch.neg), host.elementwise(np.negative, operator.neg)),
    "Abs": plain(_unary(torch.abs), host.elementwise(np.abs, abs)),
    "Floor": plain(_unary(torch.floor), host.elementwise(np.floor, math.floor)),
    "Ceil": plain(_unary(torch.ceil), host.elementwise(np.ceil, math.ceil)),
    "Round": plain(_unary(torch.round), host.elementwise(np.round, round)),
    "Sqrt": plain(_unary(torch.sqrt), host.elementwise(np.sqrt, torch.sym_sqrt)),
    "Exp": plain(_unary(torch.exp), host.elementwise(np.exp, math.exp)),
    "Log": plain(_unary(torch.log), host.elementwise(np.log, math.log)),
    "Reciprocal": plain(_unary(torch.reciprocal), host.elementwise(np.reciprocal, lambda one: 1 / one)),
    "Sign": plain(_unary(torch.sign), host.elementwise(np.sign, np.sign)),
    **{name: plain(_unary(function)) for name, function in _ACTIVATIONS.items()},
    "LeakyRelu": plain(_with("alpha", 0.01, functional.leaky_relu)),
    "Elu": plain(_with("alpha", 1.0, functional.elu)),
    "Celu": plain(_with("alpha", 1.0, functional.celu)),
    "ThresholdedRelu": plain(_with("alpha", 1.0, partial(functional.threshold, value=0.0))),
    "HardSigmoid": plain(_hard_sigmoid),
    "Selu": plain(_selu),
    "Gelu": plain(_gelu),
}
