"""Bytes of an ONNX model piece by piece: one weight at a time is copied.

``SerializeToString`` of protobuf 7 (upb) takes four times a model's size for a moment, and ``ByteSize`` as much. These
pieces are the same bytes: fields in the order of their numbers, of which graph, weight and its values are cut open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx

#: Tags of the fields that are cut open: their number times eight, plus two for a length.
_GRAPH, _INITIALIZER, _RAW_DATA = (number << 3 | 2 for number in (7, 5, 9))


def weight_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values."""
    size: int = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size


class SerialisedModel:
    """``model`` as bytes: their number, and one piece after the other."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._before, self._after = _around(model, "graph")
        self._head, self._tail = _around(model.graph, "initializer")
        self._weights = [_Weight.of(tensor) for tensor in model.graph.initializer]
        inner = len(self._head) + len(self._tail)
        inner += sum(1 + len(_varint(weight.size)) + weight.size for weight in self._weights)
        self._graph = bytes([_GRAPH]) + _varint(inner)
        #: Number of bytes.
        self.size = len(self._before) + len(self._graph) + inner + len(self._after)

    def pieces(self) -> Iterator[bytes]:
        """All bytes."""
        yield self._before + self._graph + self._head
        for weight in self._weights:
            yield bytes([_INITIALIZER]) + _varint(weight.size)
            yield from weight.pieces()
        yield self._tail + self._after


@dataclass(frozen=True)
class _Weight:
    """One weight: what stands before its values, which are read when they are written, or all of it."""

    before: bytes
    tensor: onnx.TensorProto | None
    size: int

    @classmethod
    def of(cls, tensor: onnx.TensorProto) -> _Weight:
        before, after = _around(tensor, "raw_data")
        if after or not tensor.HasField("raw_data"):
            whole = tensor.SerializeToString()
            return cls(whole, None, len(whole))
        length = weight_bytes(tensor)
        before += bytes([_RAW_DATA]) + _varint(length)
        return cls(before, tensor, len(before) + length)

    def pieces(self) -> Iterator[bytes]:
        yield self.before
        if self.tensor is not None:
            raw = self.tensor.raw_data
            assert len(raw) == self.size - len(self.before), self.tensor.name
            yield raw


def _around(message: Any, cut: str) -> tuple[bytes, bytes]:
    """The bytes of the fields of ``message`` before the field ``cut`` and behind it."""
    number = message.DESCRIPTOR.fields_by_name[cut].number
    parts = []
    for behind in (False, True):
        part = type(message)()
        for field, value in message.ListFields():
            if field.number == number or (field.number > number) != behind:
                continue
            if isinstance(value, str | bytes | int | float):
                setattr(part, field.name, value)
            elif hasattr(value, "ListFields"):
                getattr(part, field.name).CopyFrom(value)
            else:
                getattr(part, field.name).extend(value)
        parts.append(part.SerializePartialToString())
    return parts[0], parts[1]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
