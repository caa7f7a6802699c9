"""A hub is woken by every frame, whatever its own thread does meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path

from working_sets import wait_for, working_set


class Interrupted:
    """The hub's end of its wake-up pipe: while it is read, somebody sends again."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.meanwhile = lambda: None
        self.reads = 0

    def recv(self, size: int) -> bytes:
        self.reads += 1
        self.meanwhile()
        return self._inner.recv(size)

    def fileno(self) -> int:
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:
        self._inner.setblocking(flag)

    def close(self) -> None:
        self._inner.close()


def test_a_frame_that_comes_while_the_hub_reads_its_wake_up_is_not_left_for_the_next_ping(tmp_path: Path) -> None:
    with working_set(tmp_path) as site:
        site.order(0)
        worker = site.start(0)
        hub = worker._hub
        assert hub is not None
        reading = Interrupted(hub._woken)
        reading.meanwhile = lambda: hub.send([])
        hub._woken = reading  # type: ignore[assignment]
        for count in range(1, 20):
            hub.send([])
            wait_for(lambda: not hub._is_woken, seconds=10)
            wait_for(lambda least=count: reading.reads >= least, seconds=10)
