"""Structural check of an ONNX file before any runtime opens it: whole, self-contained and of standard operators.

ONNX Runtime reads weights from any file that a tensor names: up to 1.23 wherever it lies, up to 1.26 for sparse
tensors. A model that strangers publish could so hand out whatever the server may read. The check refuses

* data outside the file, in initializers, attributes and sparse tensors (sparse ones are refused as a whole);
* operators outside the standard domain, and functions. Nothing that makes variants here writes others: a quantized
  variant is QuantizeLinear and DequantizeLinear of the standard domain;
* graphs within graphs (If, Loop, Scan, SequenceMap): a loop may be without end;
* training information, settings for the runtime in the metadata, fields that ONNX 1.23 does not define;
* what is truncated, has bytes to spare, or is beyond the limits below.

It reads the wire format of protocol buffers from front to end, skips the weights, and needs neither ``onnx`` nor
``protobuf``. Where two parsers might differ (a field of another wire type, a second graph, a group) it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgefolio.errors import IntegrityError
from edgefolio.untrusted.onnx_fields import BYTES, MESSAGES, NAMES, OF_FUNCTIONS, OUTSIDE

#: Protocol buffers hold no more.
MAXIMUM_BYTES = (1 << 31) - 1
MAXIMUM_NODES = 50_000
MAXIMUM_TENSORS = 100_000
#: Fields in all, without those inside weights: a few seconds of reading.
MAXIMUM_FIELDS = 500_000
MAXIMUM_DEPTH = 16
#: Operator sets of the standard domain: from the oldest that ONNX Runtime supports to that of ONNX 1.23.
OPSETS = range(7, 29)
IR_VERSIONS = range(3, 15)
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

_LONGEST_NAME = 4096
_WINDOW_BYTES = 1 << 16
_OPERATOR = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RUNTIME_SETTINGS = ("ort_config", "ort.", "session.", "ep.")


@dataclass(frozen=True, kw_only=True)
class OnnxSummary:
    """What the check saw: operator set of the standard domain, IR version, number of nodes."""

    opset: int
    ir_version: int
    nodes: int


class ForwardStream(Protocol):
    """Bytes that are read forwards; fewer than asked for only at the end."""

    def read(self, size: int, /) -> bytes:
        """``size`` bytes."""

    def seekable(self) -> bool:
        """Whether :meth:`seek` works."""

    def seek(self, offset: int, whence: int, /) -> int:
        """Skip ``offset`` bytes; ``whence`` is 1."""


def check_onnx_file(path: Path, *, location: str | None = None) -> OnnxSummary:
    """:func:`check_onnx` of a local file; ``location`` stands in errors, else its path does."""
    with path.open("rb") as stream:
        return check_onnx(stream, size=path.stat().st_size, location=location or str(path))


def check_onnx(stream: ForwardStream, *, size: int, location: str) -> OnnxSummary:
    """Check the ``size`` bytes of ``stream``, which is read forwards only. Raises :class:`IntegrityError`."""
    if not 0 < size <= MAXIMUM_BYTES:
        raise IntegrityError(f"a model file has 1 to {MAXIMUM_BYTES} bytes, this one {size}.", location=location)
    try:
        return _Walk(_Window(stream, size)).summary()
    except _RefusedError as error:
        raise IntegrityError(f"the model is refused: {error}.", location=location) from None


class _RefusedError(Exception):
    """What the check found, as a clause."""


class _Window:
    """A few bytes of a stream at a time, forwards."""

    def __init__(self, stream: ForwardStream, size: int) -> None:
        self.size = size
        self._stream = stream
        self._start = self._at = 0
        self._bytes = b""

    def byte(self, position: int) -> int:
        """The byte at ``position``, which is not before an earlier one."""
        offset = position - self._start
        if offset >= len(self._bytes):
            self._fill(position)
            offset = 0
        return self._bytes[offset]

    def read(self, position: int, length: int) -> bytes:
        """``length`` bytes, at most :data:`_LONGEST_NAME`."""
        if position - self._start + length > len(self._bytes):
            kept = self._bytes[position - self._start :]
            self._fill(position + len(kept))
            self._bytes, self._start = kept + self._bytes, position
        offset = position - self._start
        found = self._bytes[offset : offset + length]
        if len(found) < length:
            raise _RefusedError("it is truncated")
        return found

    def _fill(self, position: int) -> None:
        if position > self._at and self._stream.seekable():
            self._stream.seek(position - self._at, 1)
            self._at = position
        while self._at < position:  # a server without ranges
            skipped = self._stream.read(min(position - self._at, 1 << 20))
            if not skipped:
                raise _RefusedError("it is truncated")
            self._at += len(skipped)
        self._start, self._bytes = position, self._stream.read(min(_WINDOW_BYTES, max(1, self.size - position)))
        self._at += len(self._bytes)
        if not self._bytes:
            raise _RefusedError("it is truncated")


class _Walk:
    """One pass over the messages of a file, without recursion."""

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._position = 0
        self._fields = 0
        self._counts = {"Node": 0, "Tensor": 0, "Graph": 0}
        self._ir_version: int | None = None
        self._opset: int | None = None
        self._entry: tuple[str, int] = ("", 0)

    def summary(self) -> OnnxSummary:
        """Walk through all of it."""
        open_messages = [("Model", self._window.size)]
        while open_messages:
            message, end = open_messages[-1]
            if self._position == end:
                open_messages.pop()
                if message == "OperatorSet":
                    self._imported(*self._entry)
                continue
            inner = self._field(message, end)
            if inner is not None:
                open_messages.append(inner)
                if len(open_messages) > MAXIMUM_DEPTH:
                    raise _RefusedError(f"its messages are nested more than {MAXIMUM_DEPTH} deep")
        if self._counts["Graph"] != 1 or self._ir_version is None or self._opset is None:
            raise _RefusedError("it is no ONNX model with one graph, an IR version and a standard operator set")
        return OnnxSummary(opset=self._opset, ir_version=self._ir_version, nodes=self._counts["Node"])

    def _field(self, message: str, end: int) -> tuple[str, int] | None:
        """Read one field; a message inside is returned, with its end, to be walked through next."""
        self._fields += 1
        if self._fields > MAXIMUM_FIELDS:
            raise _RefusedError(f"it has more than {MAXIMUM_FIELDS} fields")
        tag = self._varint(end, longest=5)
        number, wire = tag >> 3, tag & 7
        field = MESSAGES[message].get(number)
        if field is None:
            raise _RefusedError(f"its {message} has a field {number}, which ONNX does not define")
        if isinstance(field, str) and field.startswith("!"):
            raise _RefusedError(field[1:])
        if wire not in (field if isinstance(field, frozenset) else BYTES):
            raise _RefusedError(f"field {number} of its {message} has the wire type {wire}")
        if wire == 0:
            self._number(message, number, self._varint(end, longest=10))
            return None
        length = {1: 8, 5: 4}.get(wire)
        if length is None:
            length = self._varint(end, longest=5)
        if length > end - self._position:
            raise _RefusedError("it is truncated, or a length in it is wrong")
        if isinstance(field, str):
            self._begins(field)
            return field, self._position + length
        if length and (message, number) in OF_FUNCTIONS:
            raise _RefusedError("it calls a function")
        if (message, number) in NAMES:
            self._name(message, number, length)
        self._position += length
        return None

    def _begins(self, message: str) -> None:
        if message == "OperatorSet":
            self._entry = ("", 0)
        if message not in self._counts:
            return
        self._counts[message] += 1
        most = {"Node": MAXIMUM_NODES, "Tensor": MAXIMUM_TENSORS, "Graph": 1}[message]
        if self._counts[message] > most:
            raise _RefusedError(f"it has more than {most} of {message}")

    def _number(self, message: str, number: int, value: int) -> None:
        if (message, number) == ("Tensor", 14) and value != 0:
            raise _RefusedError(OUTSIDE[1:])
        if (message, number) == ("Model", 1):
            if value not in IR_VERSIONS:
                raise _RefusedError(f"its IR version {value} is not in {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}")
            self._ir_version = value
        if (message, number) == ("OperatorSet", 2):
            self._entry = (self._entry[0], value)

    def _name(self, message: str, number: int, length: int) -> None:
        if length > _LONGEST_NAME:
            raise _RefusedError(f"a name in it has {length} bytes")
        name = self._window.read(self._position, length).decode("ascii", errors="backslashreplace")
        if (message, number) == ("Node", 4) and not _OPERATOR.fullmatch(name):
            raise _RefusedError(f"it needs an operator {name[:80]!r}")
        if (message, number) == ("Node", 4) and name in _WITH_GRAPHS:
            raise _RefusedError(f"it needs the operator {name}, which runs graphs within the graph")
        if (message, number) == ("Node", 7) and name not in STANDARD_DOMAINS:
            raise _RefusedError(f"it needs operators outside the standard domain: {name[:80]!r}")
        if message == "ModelMetadata" and name.lower().startswith(_RUNTIME_SETTINGS):
            raise _RefusedError(f"its metadata holds settings for the runtime ({name[:80]!r})")
        if message == "OperatorSet":
            self._entry = (name, self._entry[1])

    def _imported(self, domain: str, version: int) -> None:
        """An operator set that is imported; those of other domains matter only to nodes, which must not use them."""
        if domain not in STANDARD_DOMAINS:
            return
        if version not in OPSETS:
            raise _RefusedError(f"its operator set {version} is not in {OPSETS[0]} to {OPSETS[-1]}")
        self._opset = max(version, self._opset or 0)

    def _varint(self, end: int, *, longest: int) -> int:
        value = shift = 0
        for position in range(self._position, min(end, self._position + longest)):
            byte = self._window.byte(position)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self._position = position + 1
                return value
        raise _RefusedError("it is truncated, or a number in it is too long")
