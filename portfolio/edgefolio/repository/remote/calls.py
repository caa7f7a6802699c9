"""Calls to a store over a network: cancelled at once when asked to, ended when no data arrives.

The coroutines run in fsspec's event loop, which is a thread of its own and where the client of s3fs lives. The caller
waits for them in short steps, so it can ask in between whether it should wait on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from fsspec.asyn import get_loop

from edgefolio.errors import EdgefolioError

T = TypeVar("T")

#: A host that is there accepts within one round trip; after three lost packets TCP has tried for 7 s.
CONNECT_SECONDS = 10.0
#: Longest silence, before the answer or within it. A link that was away for 6 s moves again within 13 s: TCP sends
#: what was lost again after 0.2, 0.4, 0.8 ... 6.4 s.
SILENT_SECONDS = 15.0
#: Slower than this over the whole window, a transfer is given up: a variant of 1 MB would take a quarter of an hour.
LEAST_BYTES_PER_SECOND = 1024
SLOW_WINDOW_SECONDS = 60.0
#: Interval at which a waiting call asks whether to go on.
_POLL_SECONDS = 0.2
_CHUNK_BYTES = 1 << 20

_MAY_GO_ON: ContextVar[Callable[[], bool]] = ContextVar("may_go_on", default=lambda: True)


class TransferStopped(EdgefolioError):  # noqa: N818 - cancelled on request, not an error
    """A call or download was cancelled; the next download resumes it."""


class SlowError(Exception):
    """Nothing, or next to nothing, came for too long."""


@contextlib.contextmanager
def interruptible(may_go_on: Callable[[], bool]) -> Iterator[None]:
    """Context in which every call to a store ends with :class:`TransferStopped` soon after ``may_go_on`` is false."""
    outer = _MAY_GO_ON.get()
    token = _MAY_GO_ON.set(lambda: outer() and may_go_on())
    try:
        yield
    finally:
        _MAY_GO_ON.reset(token)


def require_going_on() -> None:
    """Raise :class:`TransferStopped` if the surrounding :func:`interruptible` says so."""
    if not _MAY_GO_ON.get()():
        raise TransferStopped("the transfer was stopped")


def pause(seconds: float) -> None:
    """Sleep, but no longer than the surrounding :func:`interruptible` allows."""
    until = time.monotonic() + seconds
    while True:
        require_going_on()
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _POLL_SECONDS))


def wait_for(call: Coroutine[Any, Any, T], *, seconds: float) -> T:
    """The result of ``call``. Raises :class:`SlowError` after ``seconds``, and :class:`TransferStopped`.

    In both cases the call itself is cancelled, which closes its connection.
    """
    future = asyncio.run_coroutine_threadsafe(call, get_loop())
    until = time.monotonic() + seconds
    try:
        while True:
            left = until - time.monotonic()
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return future.result(timeout=max(0.0, min(left, _POLL_SECONDS)))
            if future.done():
                return future.result()  # the call's own timeout, or it ended just now
            if left <= 0:
                raise SlowError(f"no data arrived for {seconds:.0f} s")
            require_going_on()
    finally:
        future.cancel()


class Body(Protocol):
    """The body of an answer, read in the event loop."""

    async def read(self, size: int, /) -> bytes:
        """What has arrived, at most ``size`` bytes; waits for the first; empty at the end."""

    def close(self) -> None:
        """Drop the connection."""


class RemoteStream:
    """The bytes of one answer, at the pace at which they arrive. Failures are those of ``translated``.

    ``starts_at`` is the offset of the first byte: 0, whatever was asked for, where the store knows no ranges.
    """

    def __init__(
        self, body: Body, *, starts_at: int, translated: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self.starts_at = starts_at
        self._body = body
        self._translated = translated
        self._waited, self._gained = 0.0, 0

    def __enter__(self) -> RemoteStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        began = time.monotonic()
        with self._translated():
            chunk = wait_for(self._body.read(size), seconds=SILENT_SECONDS)
            self._require_progress(len(chunk), time.monotonic() - began)
        return chunk

    def close(self) -> None:
        """Drop the connection."""
        get_loop().call_soon_threadsafe(self._body.close)

    def _require_progress(self, gained: int, waited: float) -> None:
        # Only waiting counts: a transfer that its reader slows down is not the store's fault.
        self._waited, self._gained = self._waited + waited, self._gained + gained
        if self._waited < SLOW_WINDOW_SECONDS:
            return
        if self._gained < LEAST_BYTES_PER_SECOND * self._waited:
            raise SlowError(f"only {self._gained} bytes arrived in {self._waited:.0f} s")
        self._waited, self._gained = 0.0, 0


def read_up_to(stream: RemoteStream, size: int | None) -> bytes:
    """The first ``size`` bytes of ``stream``, or all if it has fewer or ``size`` is ``None``."""
    chunks: list[bytes] = []
    left = size if size is not None else 1 << 62
    while left > 0 and (chunk := stream.read(min(left, _CHUNK_BYTES))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)
