"""One connection: bytes in both directions without ever waiting, with or without TLS."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from enum import Enum, auto
from time import monotonic

from edgefolio_worker.network.outbox import Outbox
from edgefolio_worker.protocol.expected import Expectation
from edgefolio_worker.protocol.frames import Frame, FrameReader, Header

__all__ = ["Connection", "ConnectionEndedError", "Stage"]

#: Bytes that are read of one connection before the others have their turn.
_TURN_BYTES = 4 << 20
#: Payloads from this size on say how fast the connection is.
_TELLING_BYTES = 64 << 10
_USER_TIMEOUT_MILLISECONDS = 1000


class ConnectionEndedError(Exception):
    """The connection is over; ``reason`` is one lower-case word."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)


class Stage(Enum):
    """How far a connection is."""

    CONNECTING = auto()
    ENCRYPTING = auto()
    GREETING = auto()
    LINKED = auto()


_GREETED = frozenset({Stage.GREETING, Stage.LINKED})


class Connection:
    """A socket with its reader and its outbox. ``peer`` is the other side's rank, once it is known."""

    def __init__(
        self,
        raw: socket.socket,
        *,
        expectation: Expectation,
        most_bytes: int,
        context: ssl.SSLContext | None,
        is_caller: bool,
        deadline: float,
    ) -> None:
        """``context`` is that of TLS; ``deadline`` is the end of the handshake, on the monotonic clock."""
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MILLISECONDS)
        self.socket: socket.socket = raw
        #: Its file descriptor, which TLS takes over with another object.
        self.number = raw.fileno()
        self.is_closed = False
        self.is_caller = is_caller
        self.deadline = deadline
        self.expectation = expectation
        self.outbox = Outbox(most_bytes=most_bytes)
        self.stage = Stage.CONNECTING if is_caller else Stage.ENCRYPTING
        self.received_bytes = 0
        self.bytes_per_second: float | None = None
        #: Pings that were sent since the last answer, the last one's count and time, and the time it took.
        self.unanswered = 0
        self.pings = 0
        self.pinged_at = 0.0
        self.round_trip: float | None = None
        #: Milliseconds that the peer's task takes already, or APART, and that its part of the last job took it.
        self.task_milliseconds: int | None = None
        self.own_milliseconds: float | None = None
        #: Whether TLS holds bytes back that no selector sees.
        self.has_more = False
        self._wants_write = False
        self._context = context
        self._since = 0.0
        self._reader = FrameReader(self._due)
        if not is_caller:
            self._wrap()

    @property
    def peer(self) -> int | None:
        """The other side's rank, once it is known."""
        return self.expectation.peer

    @property
    def wants_write(self) -> bool:
        """Whether it waits for room to send."""
        return self._wants_write or self.stage is Stage.CONNECTING or (self.stage in _GREETED and len(self.outbox) > 0)

    def advance(self) -> bool:
        """Go on with connecting and TLS. Returns whether frames may be sent. Raises :class:`ConnectionEndedError`."""
        if self.stage is Stage.CONNECTING:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise ConnectionEndedError("unreachable", errno.errorcode.get(code, str(code)))
            try:
                self.socket.getpeername()
            except OSError:
                return False  # not yet
            self.stage = Stage.ENCRYPTING
            self._wrap()
        if self.stage is Stage.ENCRYPTING:
            if isinstance(self.socket, ssl.SSLSocket):
                self._wants_write = False
                try:
                    self.socket.do_handshake()
                except ssl.SSLWantReadError:
                    return False
                except ssl.SSLWantWriteError:
                    self._wants_write = True
                    return False
                except (OSError, ValueError) as error:
                    raise ConnectionEndedError("tls", str(error)[:200]) from error
            self.stage = Stage.GREETING
        return True

    def certificate(self) -> bytes | None:
        """What the other side presented (DER); ``None`` without TLS."""
        return self.socket.getpeercert(binary_form=True) if isinstance(self.socket, ssl.SSLSocket) else None

    def read(self) -> Iterator[Frame]:
        """Whole frames that have arrived. Raises :class:`ConnectionEndedError` and :class:`ProtocolError`."""
        self.has_more = False
        left = _TURN_BYTES
        while left > 0:
            room = self._reader.room
            if not self._since and len(room) >= _TELLING_BYTES:
                self._since = monotonic()
            try:
                count = self.socket.recv_into(room)
            except (BlockingIOError, ssl.SSLWantReadError, InterruptedError):
                return
            except ssl.SSLWantWriteError:
                self._wants_write = True
                return
            except ssl.SSLError as error:
                raise ConnectionEndedError("tls", str(error)[:200]) from error
            except (OSError, ValueError) as error:
                raise ConnectionEndedError("lost", str(error)[:200]) from error
            if count == 0:
                raise ConnectionEndedError("closed")
            left -= count
            self.received_bytes += count
            frame = self._reader.wrote(count)
            if frame is not None:
                self._measure(frame)
                yield frame
        self.has_more = True

    def write(self) -> None:
        """Send what waits, as far as it goes. Raises :class:`ConnectionEndedError`."""
        self._wants_write = False
        self.outbox.send(self._send)

    def close(self) -> None:
        """Close it, without a word."""
        self.is_closed = True
        with contextlib.suppress(OSError):
            self.socket.close()

    def _due(self, header: Header) -> range:
        return self.expectation.due(header)

    def _wrap(self) -> None:
        if self._context is None:
            return
        try:
            self.socket = self._context.wrap_socket(
                self.socket, server_side=not self.is_caller, do_handshake_on_connect=False
            )
        except (OSError, ValueError) as error:
            raise ConnectionEndedError("tls", str(error)[:200]) from error

    def _send(self, piece: memoryview) -> int:
        try:
            return self.socket.send(piece)
        except (BlockingIOError, ssl.SSLWantWriteError, InterruptedError):
            self._wants_write = True
            return 0
        except ssl.SSLWantReadError:
            return 0
        except (OSError, ValueError) as error:
            raise ConnectionEndedError("lost", str(error)[:200]) from error

    def _measure(self, frame: Frame) -> None:
        if self._since and len(frame.payload) >= _TELLING_BYTES:
            passed = monotonic() - self._since
            if passed > 0:
                self.bytes_per_second = len(frame.payload) / passed
        self._since = 0.0
