"""Operators with weights, as layers of torch: convolutions, linear layers, norms, learned slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgefolio_pruner.onnx_source.graph import Array, Node
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value, layered, plain, tensor_of
from edgefolio_pruner.onnx_source.operators.windows import Window, padded, window_of

__all__ = ["LINEAR", "OPERATORS"]

#: A product with a constant matrix and the sum behind it, which the builder joins.
LINEAR = "MatMul+Add"

_CONVOLUTIONS: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_Constants = Sequence[Array | None]
_REMEDY = "Export the network with another form of it."


class _AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of values of any rank."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        del input


def _filled(layer: nn.Module, **values: Array | None) -> nn.Module:
    """``layer`` with these weights; floats in float32."""
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(layer, name).copy_(torch.tensor(np.ascontiguousarray(value)))
    return layer


def _kernel(node: Node, weight: Array) -> tuple[int, ...]:
    kernel = tuple(weight.shape[2:])
    if tuple(node.attributes.get("kernel_shape", kernel)) != kernel or weight.ndim not in _CONVOLUTIONS:
        raise node.refused(f"has weights of {weight.ndim} axes, or another kernel than its weights", remedy=_REMEDY)
    return kernel


def _convolution(node: Node, constants: _Constants) -> nn.Module | None:
    weight, bias = constants[1], constants[2] if len(constants) > 2 else None
    if weight is None or (len(node.inputs) > 2 and node.inputs[2] and bias is None):
        return None
    window, groups = window_of(node, _kernel(node, weight)), int(node.attributes.get("group", 1))
    with torch.device("meta"):
        layer: nn.Module = _CONVOLUTIONS[weight.ndim](
            weight.shape[1] * groups,
            weight.shape[0],
            window.kernel,
            stride=window.stride,
            padding=window.before if window.even else 0,
            dilation=window.dilation,
            groups=groups,
            bias=bias is not None,
        )
    return _filled(layer.to_empty(device="cpu"), weight=weight, bias=bias)


def _run_convolution(node: Node, layer: nn.Module, value: torch.Tensor) -> torch.Tensor:
    window = window_of(node, tuple(layer.kernel_size))  # type: ignore[arg-type]
    if not window.even:
        value = padded(value, window.amounts(value.shape[2:]))
    result: torch.Tensor = layer(value)
    return result


def _transposed(node: Node, constants: _Constants) -> nn.Module | None:
    weight, bias = constants[1], constants[2] if len(constants) > 2 else None
    if weight is None or (len(node.inputs) > 2 and node.inputs[2] and bias is None):
        return None
    window, groups = window_of(node, _kernel(node, weight)), int(node.attributes.get("group", 1))
    if "output_shape" in node.attributes or window.same is not None:
        raise node.refused("asks for an output size", remedy="Export it with pads and output_padding.")
    with torch.device("meta"):
        layer: nn.Module = _TRANSPOSED[weight.ndim](
            weight.shape[0],
            weight.shape[1] * groups,
            window.kernel,
            stride=window.stride,
            padding=window.before if window.even else 0,
            output_padding=tuple(node.attributes.get("output_padding", [0] * len(window.kernel))),
            dilation=window.dilation,
            groups=groups,
            bias=bias is not None,
        )
    return _filled(layer.to_empty(device="cpu"), weight=weight, bias=bias)


def _run_transposed(node: Node, layer: nn.Module, value: torch.Tensor) -> torch.Tensor:
    window: Window = window_of(node, tuple(layer.kernel_size))  # type: ignore[arg-type]
    result: torch.Tensor = layer(value)
    return result if window.even else padded(result, [(-one, -other) for one, other in window.amounts(())])


def _linear_of(weight: Array, bias: Array | None) -> nn.Module | None:
    """A linear layer with the weight [out, in]."""
    outputs, inputs = weight.shape
    if bias is not None:
        if bias.size not in (1, outputs) or (bias.ndim > 1 and bias.shape[-1] not in (1, outputs)):
            return None
        bias = np.broadcast_to(bias.reshape(-1), (outputs,))
    with torch.device("meta"):
        layer = nn.Linear(inputs, outputs, bias=bias is not None)
    return _filled(layer.to_empty(device="cpu"), weight=weight, bias=bias)


def _general_product(node: Node, constants: _Constants) -> nn.Module | None:
    weight, bias = constants[1], constants[2] if len(constants) > 2 else None
    known = weight is not None and not (len(node.inputs) > 2 and node.inputs[2] and bias is None)
    if not known or node.attributes.get("transA", 0):
        return None
    assert weight is not None
    weight = weight if node.attributes.get("transB", 0) else weight.T
    factor, share = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    return _linear_of(weight * np.float32(factor), None if bias is None else bias * np.float32(share))


def _run_general_product(node: Node, one: Value, other: Value, added: Value | None = None) -> torch.Tensor:
    like = one if isinstance(one, torch.Tensor) else other
    assert isinstance(like, torch.Tensor)
    first, second = tensor_of(one, like), tensor_of(other, like)
    first = first.mT if node.attributes.get("transA", 0) else first
    second = second.mT if node.attributes.get("transB", 0) else second
    result: torch.Tensor = (first @ second) * node.attributes.get("alpha", 1.0)
    return result if added is None else result + tensor_of(added, like) * node.attributes.get("beta", 1.0)


def _product(node: Node, constants: _Constants) -> nn.Module | None:
    del node
    weight, bias = constants[1], constants[2] if len(constants) > 2 else None
    return _linear_of(weight.T, bias) if weight is not None and weight.ndim == 2 else None


def _run_product(_node: Node, one: Value, other: Value) -> torch.Tensor:
    like = one if isinstance(one, torch.Tensor) else other
    assert isinstance(like, torch.Tensor)
    return torch.matmul(tensor_of(one, like), tensor_of(other, like))


def _batch_norm(node: Node, constants: _Constants) -> nn.Module | None:
    scale, shift, mean, variance = constants[1:5]
    if scale is None or shift is None or mean is None or variance is None:
        return None
    if node.attributes.get("training_mode", 0):
        raise node.refused("uses statistics of the batch", remedy="Export the network in evaluation mode.")
    # torch's momentum is the share of what is new.
    layer = _AnyBatchNorm(
        scale.shape[0], eps=node.attributes.get("epsilon", 1e-5), momentum=1 - node.attributes.get("momentum", 0.9)
    )
    return _filled(layer, weight=scale, bias=shift, running_mean=mean, running_var=variance)


def _layer_norm(node: Node, constants: _Constants) -> nn.Module | None:
    scale, shift = constants[1], constants[2] if len(constants) > 2 else None
    if scale is None or (len(node.inputs) > 2 and node.inputs[2] and shift is None):
        return None
    # A positive axis counts from the front; the sizes of the scale say the same.
    if node.attributes.get("axis", -1) not in (-scale.ndim, *range(1, 16)):
        return None
    layer = nn.LayerNorm(scale.shape, eps=node.attributes.get("epsilon", 1e-5), bias=shift is not None)
    return _filled(layer, weight=scale, bias=shift)


def _group_norm(node: Node, constants: _Constants) -> nn.Module | None:
    scale, shift = constants[1:3]
    if scale is None or shift is None:
        return None
    groups = int(node.attributes["num_groups"])
    if node.opset < 21 and scale.shape[0] == groups:
        # One factor for each group, as of old; with one channel in each it is the same.
        raise node.refused(
            "has one factor for each group", remedy="Export it with operator set 21, or set 17, where it has parts."
        )
    layer = nn.GroupNorm(groups, scale.shape[0], eps=node.attributes.get("epsilon", 1e-5))
    return _filled(layer, weight=scale, bias=shift)


def _instance_norm(node: Node, constants: _Constants) -> nn.Module | None:
    scale, shift = constants[1:3]
    if scale is None or shift is None:
        return None
    # A group norm with one channel in each group does not ask for more than one position.
    layer = nn.GroupNorm(scale.shape[0], scale.shape[0], eps=node.attributes.get("epsilon", 1e-5))
    return _filled(layer, weight=scale, bias=shift)


def _slopes(node: Node, constants: _Constants) -> nn.Module | None:
    del node
    slope = constants[1]
    if slope is None or max(slope.shape, default=1) != slope.size or (slope.size > 1 and slope.shape[0] != slope.size):
        return None
    return _filled(nn.PReLU(slope.size), weight=slope.reshape(-1))


def _run_slopes(_node: Node, value: torch.Tensor, slope: Value) -> torch.Tensor:
    return torch.where(value >= 0, value, value * tensor_of(slope, value))


def _local_norm(node: Node, value: torch.Tensor) -> torch.Tensor:
    given = node.attributes
    return functional.local_response_norm(
        value, given["size"], given.get("alpha", 1e-4), given.get("beta", 0.75), given.get("bias", 1.0)
    )


def _unit_norm(node: Node, value: torch.Tensor) -> torch.Tensor:
    order, axis = node.attributes.get("p", 2), node.attributes.get("axis", -1)
    length: Any = value.abs().sum(axis, keepdim=True) if order == 1 else value.square().sum(axis, keepdim=True).sqrt()
    result: torch.Tensor = value / length
    return result


def _einsum(node: Node, *given: Value) -> torch.Tensor:
    like = next(value for value in given if isinstance(value, torch.Tensor))
    return torch.einsum(node.attributes["equation"], *[tensor_of(value, like) for value in given])


OPERATORS: dict[str, Operator] = {
    "Conv": layered(_convolution, (1, 2), with_layer=_run_convolution),
    "ConvTranspose": layered(_transposed, (1, 2), with_layer=_run_transposed),
    "Gemm": layered(_general_product, (1, 2), run=_run_general_product),
    "MatMul": layered(_product, (1,), run=_run_product),
    LINEAR: layered(_product, (1, 2)),
    "BatchNormalization": layered(_batch_norm, (1, 2, 3, 4)),
    "LayerNormalization": layered(_layer_norm, (1, 2)),
    "GroupNormalization": layered(_group_norm, (1, 2)),
    "InstanceNormalization": layered(_instance_norm, (1, 2)),
    "PRelu": layered(_slopes, (1,), run=_run_slopes),
    "LRN": plain(_local_norm),
    "LpNormalization": plain(_unit_norm),
    "Einsum": plain(_einsum),
}
