"""The door: the listening socket, and how many may come through it at a time."""

from __future__ import annotations

import contextlib
import socket

from edgefolio_worker.records.set_file import split_address

__all__ = ["MOST_STRANGERS", "Door", "socket_for"]

#: Connections that have not said yet who they are.
MOST_STRANGERS = 16
#: Connections that are let in a second, and at once after a pause: each costs a handshake.
LET_IN_PER_SECOND = 32
#: A port that is still taken, by the process before, is tried again after so many seconds.
RETRY_SECONDS = 0.2


class Door:
    """The listening socket at ``address``, opened as soon as the port is free."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.socket: socket.socket | None = None
        #: Why it is not open.
        self.problem: str | None = None
        self._next_try = 0.0
        self._tokens = float(LET_IN_PER_SECOND)
        self._counted_at = 0.0

    @property
    def number(self) -> int | None:
        """Its file descriptor; ``None`` while it is not open."""
        return None if self.socket is None else self.socket.fileno()

    def try_to_open(self, now: float) -> None:
        """Open it if it is time to try."""
        if self.socket is not None or now < self._next_try:
            return
        self._next_try = now + RETRY_SECONDS
        listening = socket_for(self._address)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)
            listening.bind(split_address(self._address))
            listening.listen(MOST_STRANGERS)
        except OSError as error:
            listening.close()
            self.problem = f"cannot listen at {self._address} ({error.strerror})"
            return
        self.socket, self.problem = listening, None

    def lets_in(self, now: float) -> bool:
        """Whether one more may come in now; whoever must wait stays in the queue of the kernel."""
        self._tokens = min(LET_IN_PER_SECOND, self._tokens + LET_IN_PER_SECOND * (now - self._counted_at))
        self._counted_at = now
        return self._tokens >= 1

    def accept(self) -> socket.socket | None:
        """Whoever knocks; ``None`` if nobody does any more."""
        assert self.socket is not None
        try:
            found, _ = self.socket.accept()
        except OSError:
            return None
        self._tokens -= 1
        return found

    def close(self) -> None:
        """Close it."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.close()
            self.socket = None


def socket_for(address: str) -> socket.socket:
    """A TCP socket of the address's family."""
    family = socket.AF_INET6 if ":" in split_address(address)[0] else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM)
