"""Bounded connections: one more than there is room for takes the place of one that asks nothing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from weakref import WeakSet

from aiohttp import web

__all__ = ["AskingConnections", "BoundedConnections", "most_connections"]

#: Files that the process needs besides, and connections that are taken in one turn of the event loop.
_OTHER_FILES = 128


class AskingConnections:
    """Which connections have a request under way, and which ever had one."""

    def __init__(self) -> None:
        self.under_way: WeakSet[asyncio.BaseTransport] = WeakSet()
        self.known: WeakSet[asyncio.BaseTransport] = WeakSet()

    @contextlib.contextmanager
    def asks(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """A request of this connection is under way for the context."""
        if transport is not None:
            self.under_way.add(transport)
            self.known.add(transport)
        try:
            yield
        finally:
            if transport is not None:
                self.under_way.discard(transport)


class BoundedConnections:
    """Factory of connections for an event loop's server; about ``most`` are open at a time."""

    def __init__(self, server: web.Server, asking: AskingConnections, *, most: int) -> None:
        self._server = server
        self._asking = asking
        self._most = most

    def __call__(self) -> asyncio.Protocol:
        """A protocol for a new connection; the oldest silent one is closed for it where ``most`` are open."""
        transports = (connection.transport for connection in self._server.connections)
        present = [each for each in transports if each is not None and not each.is_closing()]
        if len(present) >= self._most:
            # A client that has asked before is likelier to ask again than one that never has; the oldest come first.
            silent = [each for each in present if each not in self._asking.under_way]
            found = min(silent, key=lambda each: each in self._asking.known, default=None)
            if isinstance(found, asyncio.WriteTransport):
                found.abort()
        return self._server()


def most_connections(wanted: int) -> int:
    """``wanted``, or fewer where this process may open fewer files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - _OTHER_FILES))
