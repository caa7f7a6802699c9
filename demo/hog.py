"""Competing work on given processors: processes that count, bounded in time, ended by id."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType

_COUNT = """
import os, sys, time
os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
end = time.monotonic() + float(sys.argv[2])
parent = os.getppid()
while time.monotonic() < end and os.getppid() == parent:
    sum(range(100000))
"""


class CpuHog:
    """``processes`` busy loops on the processors ``cpus`` for at most ``seconds``; a context manager."""

    def __init__(self, *, cpus: frozenset[int], processes: int, seconds: float) -> None:
        self._command = [sys.executable, "-c", _COUNT, ",".join(map(str, sorted(cpus))), str(seconds)]
        self._count = processes
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> CpuHog:
        # Each in a session of its own: Linux may share processors out by session, and four hogs must count as four.
        self._running = [subprocess.Popen(self._command, start_new_session=True) for _ in range(self._count)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait()


def processors() -> tuple[frozenset[int], frozenset[int]]:
    """(processors of the server, processors of the clients): apart from each other where there are two."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) == 1:
        return frozenset(available), frozenset(available)
    return frozenset(available[:1]), frozenset(available[1:])
