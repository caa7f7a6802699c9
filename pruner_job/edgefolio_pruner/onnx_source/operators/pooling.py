"""Pools, reductions, softmax and resizing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgefolio_pruner.onnx_source.graph import Array, Node
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value, axes_of, plain
from edgefolio_pruner.onnx_source.operators.windows import padded, window_of

__all__ = ["OPERATORS"]

_MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_REMEDY = "Export the network with another pool."


def _maximum_pool(node: Node, value: torch.Tensor) -> torch.Tensor:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refused("gives the places of the maxima as well", remedy=_REMEDY)
    kernel = tuple(node.attributes["kernel_shape"])
    window, padding = window_of(node, kernel), 0
    amounts = window.amounts(value.shape[2:])
    if window.even and all(2 * one <= size for one, size in zip(window.before, kernel, strict=True)):
        padding = window.before  # type: ignore[assignment]
    else:
        value = padded(value, amounts, float("-inf"))
    result: torch.Tensor = _MAXIMUM[len(kernel)](
        value, kernel, window.stride, padding, window.dilation, bool(node.attributes.get("ceil_mode", 0))
    )
    return result


def _average_pool(node: Node, value: torch.Tensor) -> torch.Tensor:
    kernel = tuple(node.attributes["kernel_shape"])
    window, counted = window_of(node, kernel), bool(node.attributes.get("count_include_pad", 0))
    if any(one != 1 for one in window.dilation):
        raise node.refused("skips positions (dilations)", remedy=_REMEDY)
    amounts = window.amounts(value.shape[2:])
    whole = bool(node.attributes.get("ceil_mode", 0))
    pool = _AVERAGE[len(kernel)]
    if all(one == other and 2 * one <= size for (one, other), size in zip(amounts, kernel, strict=True)):
        return pool(value, kernel, window.stride, tuple(one for one, _ in amounts), whole, counted)
    if counted:
        return pool(padded(value, amounts), kernel, window.stride, 0, whole)
    # Of what is padded unevenly, and does not count, the share that counts is taken out again.
    ones = padded(torch.ones_like(value[:1, :1]), amounts)
    return pool(padded(value, amounts), kernel, window.stride, 0, whole) / pool(ones, kernel, window.stride, 0, whole)


def _global(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(_node: Node, value: torch.Tensor) -> torch.Tensor:
        return function(value, list(range(2, value.ndim)), True)

    return run


_Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _reduce(function: _Reduction) -> Callable[..., Value]:
    def run(node: Node, value: Value, axes: Value | None = None) -> Value:
        found = axes_of(node, axes)
        if not found and node.attributes.get("noop_with_empty_axes", 0):
            return value
        assert isinstance(value, torch.Tensor)
        named = [axis % value.ndim for axis in found] if found else list(range(value.ndim))
        return function(value, named, bool(node.attributes.get("keepdims", 1)))

    return run


def _host_reduce(function: Callable[..., Any]) -> Callable[..., Array]:
    def run(node: Node, value: Array, axes: Array | None = None) -> Array:
        found = axes_of(node, axes)
        keep = bool(node.attributes.get("keepdims", 1))
        result = np.asarray(function(value, axis=tuple(found) if found else None, keepdims=keep))
        return result if value.dtype == object else result.astype(value.dtype)

    return run


def _product(value: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


_REDUCTIONS: dict[str, _Reduction] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceL1": lambda value, axes, keep: value.abs().sum(axes, keep),
    "ReduceL2": lambda value, axes, keep: value.square().sum(axes, keep).sqrt(),
    "ReduceSumSquare": lambda value, axes, keep: value.square().sum(axes, keep),
    "ReduceLogSumExp": torch.logsumexp,
}
_ON_HOST: dict[str, Callable[..., Any]] = {
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceMean": np.mean,
}


def _softmax(function: Callable[..., torch.Tensor], node: Node, value: torch.Tensor) -> torch.Tensor:
    if node.opset >= 13:
        return function(value, dim=node.attributes.get("axis", -1))
    # As of old, all axes from one on are one.
    axis = node.attributes.get("axis", 1) % value.ndim
    if axis == value.ndim - 1:
        return function(value, dim=axis)
    return function(value.flatten(axis), dim=-1).reshape(value.shape)


OPERATORS: dict[str, Operator] = {
    "MaxPool": plain(_maximum_pool),
    "AveragePool": plain(_average_pool),
    "GlobalAveragePool": plain(_global(torch.mean)),
    "GlobalMaxPool": plain(_global(torch.amax)),
    "Softmax": plain(partial(_softmax, functional.softmax)),
    "LogSoftmax": plain(partial(_softmax, functional.log_softmax)),
    **{
        name: plain(_reduce(function), _host_reduce(_ON_HOST[name]) if name in _ON_HOST else None)
        for name, function in _REDUCTIONS.items()
    },
}
