"""Probes: recorded inputs and outputs, read and compared.

A shard's probe is a safetensors file: its length of header, a JSON header, and raw tensors. Triton's Python has no
package that reads it, and no more of the format is needed than this.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "ProbeError", "decoded", "difference", "read_tensors"]

Arrays = dict[str, npt.NDArray[Any]]
_MOST_HEADER_BYTES = 64 << 20
_TYPES = {"F32": "<f4", "U8": "|u1", "I64": "<i8", "I32": "<i4", "F64": "<f8", "BOOL": "|b1"}


class ProbeError(ValueError):
    """The probe cannot be read, or the answers are others."""


def read_tensors(raw: bytes) -> Arrays:
    """The tensors of a safetensors file by name. Raises :class:`ProbeError`."""
    try:
        size = int.from_bytes(raw[:8], "little")
        if size > min(len(raw) - 8, _MOST_HEADER_BYTES):
            raise ValueError("the header is longer than the file")
        header = json.loads(raw[8 : 8 + size])
        body = memoryview(raw)[8 + size :]
        found: Arrays = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
            if not 0 <= first <= last <= len(body) or last - first != dtype.itemsize * math.prod(shape):
                raise ValueError(f"{name} does not lie where the header says")
            found[name] = np.frombuffer(body[first:last], dtype=dtype).reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProbeError(f"the probe cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    return found


def decoded(tensors: list[dict[str, Any]]) -> Arrays:
    """The tensors of a ``probe.json`` by name."""
    return {
        each["name"]: np.frombuffer(base64.b64decode(each["data"]), dtype=each["dtype"]).reshape(each["shape"])
        for each in tensors
    }


def difference(
    expected: Mapping[str, npt.NDArray[Any]],
    answers: Mapping[str, npt.NDArray[Any]],
    *,
    absolute: float = 0.0,
    relative: float = 0.0,
    levels: int = 0,
) -> str | None:
    """The first output that is not the expected one, in words; ``None`` if all are.

    Floats may differ by ``absolute`` and by ``relative`` of the largest value of their tensor, bytes of the wire by
    ``levels``.
    """
    for name, wanted in expected.items():
        answer = answers[name]
        if (answer.shape, answer.dtype) != (wanted.shape, wanted.dtype):
            return f"{name} is {answer.dtype} {answer.shape}, not {wanted.dtype} {wanted.shape}"
        largest = float(np.abs(wanted.astype(np.float64)).max(initial=0.0))
        tolerance = float(levels) if wanted.dtype == np.uint8 else max(absolute, relative * largest)
        found = float(np.abs(answer.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0))
        # A NaN compares as false, and is refused too.
        if not found <= tolerance:
            return f"{name} differs by {found:.6g}, the tolerance is {tolerance:.6g}"
    return None
