"""Tensors of the open inference protocol: JSON values and little-endian bytes, both ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio_edge.http_gateway.limits import BadRequestError, Limits

__all__ = ["DATA_TYPES", "json_values", "packed_values", "read_shape", "require_bytes"]

#: Element types that the gateway knows, by the protocol's names. BF16 has none in numpy; variants use none.
DATA_TYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_LARGEST_DIMENSION = 1 << 40


def read_shape(value: object, *, name: str, limits: Limits) -> tuple[int, ...]:
    """The shape of a tensor: at most ``limits.dimensions`` whole numbers. Raises :class:`BadRequestError`."""
    if not isinstance(value, list) or len(value) > limits.dimensions:
        raise BadRequestError(f"input '{name}': 'shape' is not a list of at most {limits.dimensions} numbers")
    for size in value:
        if type(size) is not int or not 0 <= size <= _LARGEST_DIMENSION:
            raise BadRequestError(f"input '{name}': 'shape' holds something else than sizes from 0 on")
    return tuple(value)


def dtype_of(datatype: object, *, name: str) -> np.dtype[Any]:
    """The element type by its name. Raises :class:`BadRequestError` for one that is not known."""
    found = DATA_TYPES.get(datatype) if isinstance(datatype, str) else None
    if found is None:
        raise BadRequestError(f"input '{name}': 'datatype' is none of {', '.join(DATA_TYPES)}")
    return found


def require_bytes(size: int, *, name: str, datatype: object, shape: Sequence[int]) -> None:
    """Raise :class:`BadRequestError` unless a tensor of this type and shape has ``size`` bytes."""
    expected = math.prod(shape) * dtype_of(datatype, name=name).itemsize
    if size != expected:
        raise BadRequestError(f"input '{name}': {size} bytes of data where shape and datatype make {expected}")


def packed_values(values: object, *, name: str, datatype: object, shape: Sequence[int]) -> bytes:
    """JSON numbers, flat or nested, as bytes. Raises :class:`BadRequestError` if type, range or count do not fit."""
    dtype = dtype_of(datatype, name=name)
    problem = f"input '{name}': 'data' does not hold {math.prod(shape)} values of {datatype}"
    if not isinstance(values, list):
        raise BadRequestError(problem)
    if math.prod(shape) == 0 and _is_empty(values):
        return b""
    try:
        found = np.asarray(values)
        if dtype == np.uint64 and found.dtype.kind == "f":
            # numpy makes floats of numbers of which some are beyond int64; as objects they stay what they are.
            found = _whole_numbers(values)
    except (ValueError, OverflowError) as error:
        raise BadRequestError(problem) from error
    if found.size != math.prod(shape) or not _fits(found, dtype):
        raise BadRequestError(problem)
    with np.errstate(over="ignore"):
        return found.astype(dtype).tobytes()


def json_values(raw: bytes, *, datatype: str) -> list[Any]:
    """The elements in ``raw``, in one flat list, as JSON has them."""
    array: npt.NDArray[Any] = np.frombuffer(raw, dtype=DATA_TYPES[datatype])
    found: list[Any] = array.tolist()
    return found


def _is_empty(values: object) -> bool:
    return not isinstance(values, list) or all(isinstance(value, list) and _is_empty(value) for value in values)


def _whole_numbers(values: list[Any]) -> npt.NDArray[Any]:
    """``values`` as uint64. Raises :class:`ValueError` or :class:`OverflowError` for what is none."""
    found = np.asarray(values, dtype=object)
    if not all(type(value) is int and 0 <= value < 1 << 64 for value in found.flat):
        raise ValueError("not whole numbers from 0 on")
    return found.astype(np.uint64)


def _fits(found: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether every value can be said in ``dtype``: floats take any number, the rest whole numbers in their range."""
    if dtype.kind == "f":
        return found.dtype.kind in "iuf"
    if dtype.kind == "b":
        return found.dtype.kind == "b" or (found.dtype.kind in "iu" and bool(np.isin(found, (0, 1)).all()))
    if found.dtype.kind not in "iu":
        return False
    bounds = np.iinfo(dtype)
    return int(found.min()) >= int(bounds.min) and int(found.max()) <= int(bounds.max)
