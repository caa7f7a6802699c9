"""Processes and shared memory of servers that were started here.

A process is known by its id *and* its start time, because ids are reused. Shared memory is known by a random prefix
that every server gets at its start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgefolio_edge.triton.wheel import STUB

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """One process, never another that got its id later. ``started`` is in seconds since the epoch."""

    pid: int
    started: float

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessIdentity:
        """The identity of ``process``. Raises :class:`psutil.NoSuchProcess` if it is gone."""
        return cls(pid=process.pid, started=process.create_time())

    def process(self) -> psutil.Process | None:
        """The process, if it still runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            # Clock ticks are 10 ms, and the boot time that psutil adds may be adjusted by a second.
            if abs(process.create_time() - self.started) > 2 or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        return process

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self.process() is not None

    def kill(self, *, seconds: float = 5.0) -> None:
        """End the process at once and wait until it is gone."""
        process = self.process()
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        wait_until_gone([self], seconds=seconds)


def wait_until_gone(processes: Iterable[ProcessIdentity], *, seconds: float) -> bool:
    """Wait until none of ``processes`` runs. ``False`` if some still do after ``seconds``."""
    waiting = list(processes)
    deadline = time.monotonic() + seconds
    while True:
        waiting = [identity for identity in waiting if identity.is_alive()]
        if not waiting:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)


def stubs_of(server: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
    """The Python backend's stubs that ``server`` started: the running ones, one for each instance of a model."""
    process = server.process()
    found = []
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in process.children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    if child.name().startswith(STUB[:15]) and child.status() != psutil.STATUS_ZOMBIE:
                        found.append(ProcessIdentity.of(child))
    return tuple(found)


def stub_of_version(server: ProcessIdentity, version: int) -> ProcessIdentity | None:
    """The running stub of ``server`` that computes ``version``: its command line names the version's model.

    The newest one: a stub of an earlier load of the same version may still be on its way out.
    """
    found = []
    for stub in stubs_of(server):
        process = stub.process()
        if process is None:
            continue
        with contextlib.suppress(psutil.Error):
            if any(Path(argument).parent.name == str(version) for argument in process.cmdline()[1:2]):
                found.append(stub)
    return max(found, key=lambda stub: (stub.started, stub.pid), default=None)


def orphaned_stubs(prefix: str) -> tuple[ProcessIdentity, ...]:
    """Stubs that outlived their server: those whose command line names our shared memory ``prefix``."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        name, arguments = process.info["name"] or "", process.info["cmdline"] or []
        if name.startswith(STUB[:15]) and any(argument.startswith(prefix) for argument in arguments):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(ProcessIdentity.of(process))
    return tuple(found)


def shared_memory_of(prefix: str) -> tuple[Path, ...]:
    """The regions in shared memory that a server with this ``prefix`` left, or still uses."""
    try:
        return tuple(sorted(SHARED_MEMORY.glob(f"{prefix}*")))
    except OSError:
        return ()


def remove_remains(prefix: str) -> None:
    """Kill stubs and remove shared memory of a dead server."""
    for stub in orphaned_stubs(prefix):
        stub.kill()
    for region in shared_memory_of(prefix):
        region.unlink(missing_ok=True)
