"""Frames that wait for one connection, bounded, and sent in as many pieces as the connection takes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgefolio_worker.protocol.expected import entry_of
from edgefolio_worker.protocol.frames import Header, Kind, encode_header

__all__ = ["Outbox", "OutboxFullError"]

#: Up to this size header and tensors are put together: one packet, one record of TLS.
_JOINED_BYTES = 16 << 10
_OF_JOBS = frozenset({Kind.INPUT, Kind.MAPS, Kind.RESULT})


class OutboxFullError(Exception):
    """The other side takes too little."""


@dataclass
class _Waiting:
    header: Header
    pieces: deque[memoryview]
    size: int
    #: TLS wants exactly the bytes again that it could not send, so what was tried must not be dropped.
    is_begun: bool = False


class Outbox:
    """What is to be sent to one peer. Any thread puts, one thread sends."""

    def __init__(self, *, most_bytes: int) -> None:
        self._most = most_bytes
        self._frames: deque[_Waiting] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self.sent_bytes = 0

    def put(self, header: Header, tensors: Sequence[Any] = ()) -> None:
        """Add a frame. What waits of an older job of its entry is dropped, and of the very job that it cancels.

        ``tensors`` are C-contiguous buffers, which must not change any more. Raises :class:`OutboxFullError`.
        """
        views = [memoryview(tensor).cast("B") for tensor in tensors]
        payload_bytes = sum(map(len, views))
        head = encode_header(replace(header, payload_bytes=payload_bytes))
        size = len(head) + payload_bytes
        pieces = [memoryview(b"".join([head, *views]))] if size <= _JOINED_BYTES else [memoryview(head), *views]
        with self._lock:
            if header.kind in _OF_JOBS or header.kind is Kind.CANCEL:
                self._drop(header.job, with_it=header.kind is Kind.CANCEL)
            elif header.kind in (Kind.PING, Kind.PONG):
                # One of a kind is enough: the newest.
                self._remove(lambda waiting: waiting.header.kind is header.kind)
            if self._size + size > self._most:
                raise OutboxFullError
            self._frames.append(_Waiting(header, deque(pieces), size))
            self._size += size

    def bound(self, most_bytes: int) -> None:
        """Change how much may wait."""
        self._most = most_bytes

    def send(self, send: Callable[[memoryview], int]) -> bool:
        """Send until all is gone (``True``) or ``send`` returns 0, which means that it takes no more now."""
        while True:
            with self._lock:
                if not self._frames:
                    return True
                frame = self._frames[0]
                frame.is_begun = True
            while frame.pieces:
                count = send(frame.pieces[0])
                if count == 0:
                    return False
                self.sent_bytes += count
                if count < len(frame.pieces[0]):
                    frame.pieces[0] = frame.pieces[0][count:]
                else:
                    frame.pieces.popleft()
            with self._lock:
                self._frames.popleft()
                self._size -= frame.size

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._frames)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the frames that wait; at most the bound."""
        return self._size

    def _drop(self, job: int, *, with_it: bool) -> None:
        limit = job + 1 if with_it else job

        def is_over(waiting: _Waiting) -> bool:
            header = waiting.header
            return header.kind in _OF_JOBS and entry_of(header.job) == entry_of(job) and header.job < limit

        self._remove(is_over)

    def _remove(self, is_unwanted: Callable[[_Waiting], bool]) -> None:
        kept = [waiting for waiting in self._frames if waiting.is_begun or not is_unwanted(waiting)]
        if len(kept) < len(self._frames):
            self._frames = deque(kept)
            self._size = sum(waiting.size for waiting in kept)
