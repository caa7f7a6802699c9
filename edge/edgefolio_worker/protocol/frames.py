"""Frames: 40 bytes of header, then raw tensors whose length the receiver knows beforehand.

    magic "EFX1" | kind u8 | sender u8 | exchange or reason u16 | plan u64 | set u32 | job u64 | samples u16 |
    flags u16 | payload bytes u32 | crc32 of the 36 bytes before it u32                             (little endian)

Nothing is allocated by a number that a peer sent: the reader asks for the length that is due, and a header that says
another ends the connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "Frame",
    "FrameReader",
    "Header",
    "Kind",
    "ProtocolError",
    "decode_header",
    "encode_header",
    "plan_number",
]

MAGIC = b"EFX1"
_LAYOUT = struct.Struct("<4sBBHQIQHHII")
HEADER_BYTES = _LAYOUT.size
_CHECKED = HEADER_BYTES - 4


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    INPUT = 4
    MAPS = 5
    RESULT = 6
    CANCEL = 7
    PING = 8
    PONG = 9
    BYE = 10


_KINDS = frozenset(Kind)


class ProtocolError(Exception):
    """A peer broke the protocol: its connection ends, and is counted by ``reason`` (one lower-case word)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a frame. ``code`` is the exchange of MAPS, by its place in the plan, or the reason of REFUSE.

    ``plan`` is :func:`plan_number`, ``number`` the set's. The top byte of ``job`` is the rank of its entry; of PING and
    PONG it is the sender's count. ``flags`` are 0 in this version.
    """

    kind: Kind
    sender: int
    plan: int
    number: int
    code: int = 0
    job: int = 0
    samples: int = 0
    flags: int = 0
    payload_bytes: int = 0


@dataclass(frozen=True)
class Frame:
    """A whole frame: its header, and the bytes of its tensors."""

    header: Header
    payload: bytearray


def plan_number(sha256: str) -> int:
    """A plan's number in headers: the first 8 bytes of its SHA-256 (hexadecimal digits), little endian."""
    return int.from_bytes(bytes.fromhex(sha256)[:8], "little")


def encode_header(header: Header) -> bytes:
    """The 40 bytes of a header. Raises :class:`struct.error` for numbers that do not fit."""
    unchecked = _LAYOUT.pack(
        MAGIC,
        header.kind,
        header.sender,
        header.code,
        header.plan,
        header.number,
        header.job,
        header.samples,
        header.flags,
        header.payload_bytes,
        0,
    )[:_CHECKED]
    return unchecked + zlib.crc32(unchecked).to_bytes(4, "little")


def decode_header(raw: bytes | bytearray | memoryview) -> Header:
    """The header in 40 bytes. Raises :class:`ProtocolError` (``garbage``) for what none of ours wrote."""
    magic, kind, sender, code, plan, number, job, samples, flags, payload_bytes, checksum = _LAYOUT.unpack(raw)
    if magic != MAGIC:
        raise ProtocolError("garbage", "not the magic number")
    if checksum != zlib.crc32(raw[:_CHECKED]):
        raise ProtocolError("garbage", "the checksum is wrong")
    if kind not in _KINDS:
        raise ProtocolError("garbage", f"kind {kind}")
    if flags:
        raise ProtocolError("garbage", f"flags {flags}")
    return Header(
        kind=Kind(kind),
        sender=sender,
        code=code,
        plan=plan,
        number=number,
        job=job,
        samples=samples,
        flags=flags,
        payload_bytes=payload_bytes,
    )


class FrameReader:
    """Puts frames together from bytes as they arrive, in any pieces.

    The caller writes into :attr:`room` and tells :meth:`wrote` how much; so payloads are copied once, by the kernel.
    """

    def __init__(self, due: Callable[[Header], range]) -> None:
        """``due`` says which payload lengths are right for a header, or raises :class:`ProtocolError`."""
        self._due = due
        self._head = bytearray(HEADER_BYTES)
        self._header: Header | None = None
        self._payload = bytearray()
        self._filled = 0

    @property
    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        target = self._head if self._header is None else self._payload
        return memoryview(target)[self._filled :]

    def wrote(self, count: int) -> Frame | None:
        """Take ``count`` bytes of :attr:`room`; the frame that they complete. Raises :class:`ProtocolError`."""
        self._filled += count
        if self._header is None:
            if self._filled < HEADER_BYTES:
                return None
            header = decode_header(self._head)
            lengths = self._due(header)
            if header.payload_bytes not in lengths:
                raise ProtocolError("length", f"{header.kind.name} with {header.payload_bytes} bytes")
            self._header, self._payload, self._filled = header, bytearray(header.payload_bytes), 0
        if self._filled < len(self._payload):
            return None
        frame = Frame(self._header, self._payload)
        self._header, self._payload, self._filled = None, bytearray(), 0
        return frame
