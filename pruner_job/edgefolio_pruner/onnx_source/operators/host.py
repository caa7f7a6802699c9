"""Arithmetic on what is known without samples: sizes of tensors, which may be symbolic, and constants.

An array with symbolic sizes is one of objects; NumPy computes these entry by entry.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch

from edgefolio_pruner.onnx_source.graph import Array, Node

__all__ = ["LARGEST", "cast", "elementwise", "number_kind", "of_sizes", "reduced", "require_small"]

#: Numbers of one array that is computed without samples: what a file of a few bytes may ask for is bounded.
LARGEST = 1 << 24
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
_KINDS: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
    onnx.TensorProto.INT64: np.dtype(np.int64),
    onnx.TensorProto.INT32: np.dtype(np.int32),
    onnx.TensorProto.BOOL: np.dtype(np.bool_),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
    onnx.TensorProto.INT8: np.dtype(np.int8),
}


def number_kind(node: Node, code: int) -> np.dtype[Any]:
    """NumPy's type of the type ``code`` of ONNX. Raises a refusal for others than float32, float64 and integers."""
    if code not in _KINDS:
        raise node.refused(
            f"converts to the type {code} of ONNX",
            remedy="Export the network in float32.",
        )
    return _KINDS[code]


def of_sizes(sizes: Any) -> Array:
    """Sizes of a tensor as an array: of integers, or of objects where one is symbolic."""
    sizes = list(sizes)
    symbolic = any(isinstance(size, _SYMBOLS) for size in sizes)
    result = np.empty(len(sizes), dtype=object if symbolic else np.int64)
    result[:] = sizes
    return result


def require_small(node: Node, sizes: Any) -> None:
    """Raise a refusal if an array of these sizes would hold more than :data:`LARGEST` numbers."""
    if math.prod(int(size) for size in sizes) > LARGEST:
        raise node.refused(
            f"makes a constant of {'x'.join(str(size) for size in sizes)} numbers",
            remedy=f"Export it without constants of more than {LARGEST} numbers that are computed.",
        )


def elementwise(function: Callable[..., Any], each: Callable[..., Any] | None = None) -> Callable[..., Array]:
    """An elementwise function of arrays; ``each`` computes a pair of objects where NumPy's cannot."""

    def run(node: Node, *given: Array | None) -> Array:
        arrays = [value for value in given if value is not None]
        require_small(node, np.broadcast_shapes(*[array.shape for array in arrays]))
        if each is not None and any(array.dtype == object for array in arrays):
            result: Array = np.frompyfunc(each, len(arrays), 1)(*arrays)
            return np.asarray(result, dtype=object)
        kind = np.result_type(*arrays)
        with np.errstate(all="ignore"):
            found = np.asarray(function(*arrays))
        # NumPy gives float64 for a quotient of integers, for instance.
        return found if found.dtype in (np.bool_, object) or kind.kind == "O" else found.astype(kind, copy=False)

    return run


def divided(node: Node, dividend: Array | None, divisor: Array | None) -> Array:
    """A quotient; of integers, cut towards zero."""
    assert dividend is not None
    assert divisor is not None
    whole = all(value.dtype.kind in "iu" or _whole(value) for value in (dividend, divisor))
    if not whole:
        return elementwise(np.divide, operator.truediv)(node, dividend, divisor)
    if object in (dividend.dtype, divisor.dtype):
        return elementwise(operator.floordiv, operator.floordiv)(node, dividend, divisor)
    if not (divisor != 0).all():
        raise node.refused("divides sizes by zero", remedy="Export the network again.")
    return elementwise(lambda one, other: np.sign(one) * np.sign(other) * (np.abs(one) // np.abs(other)))(
        node, dividend, divisor
    )


def _whole(value: Array) -> bool:
    return value.dtype == object and all(isinstance(one, int | torch.SymInt) for one in value.reshape(-1).tolist())


def cast(node: Node, value: Array, kind: np.dtype[Any]) -> Array:
    """``value`` in another type; symbolic entries stay symbolic."""
    del node
    if value.dtype != object:
        with np.errstate(all="ignore"):
            return value.astype(kind)
    convert = {"f": _as_float, "i": _as_integer, "u": _as_integer}.get(kind.kind, bool)
    return np.asarray(np.frompyfunc(convert, 1, 1)(value), dtype=object)


def _as_float(one: Any) -> Any:
    return torch.sym_float(one)


def _as_integer(one: Any) -> Any:
    return torch.sym_int(one)


def reduced(function: Callable[..., Any]) -> Callable[..., Array]:
    """A reduction of an array over axes."""

    def run(value: Array, axes: tuple[int, ...] | None, keep: bool) -> Array:
        return np.asarray(function(value, axis=axes, keepdims=keep))

    return run
