"""Processes and shared memory of servers that were started here.

A process is known by its id *and* its start in clock ticks since boot, because ids are reused; not by wall time, which
moves with every step of the clock. Shared memory is known by a random prefix that every server gets at its start.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from edgefolio_edge.process.steady_clock import boot_id, seconds_since_boot

SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")
SERVER = "tritonserver"
STUB = "triton_python_backend_stub"
_PREFIX_OPTION = re.compile(r"^--backend-config=python,shm-region-prefix-name=(edgefolio_[0-9a-f]{16}_)$")


class _Stat(NamedTuple):
    """A process as the kernel shows it in ``/proc/PID/stat``."""

    name: str
    state: str
    parent: int
    used: int
    ticks: int


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """One process, never another that got its id later: its start in ticks since the boot called ``boot``."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessIdentity:
        """The identity of ``process``. Raises :class:`psutil.NoSuchProcess` if it is gone."""
        found = cls.of_running(process.pid)
        if found is None:
            raise psutil.NoSuchProcess(process.pid)
        return found

    @classmethod
    def of_running(cls, pid: int) -> ProcessIdentity | None:
        """The identity of the process that has this id now; ``None`` if there is none."""
        found = _stat(pid)
        return None if found is None else cls(pid=pid, ticks=found.ticks, boot=boot_id())

    @classmethod
    def of_none(cls, pid: int) -> ProcessIdentity:
        """The identity of a process with this id that is gone."""
        return cls(pid=pid, ticks=-1, boot="")

    def is_alive(self) -> bool:
        """Whether the process still runs (a zombie does not)."""
        found = _stat(self.pid) if self.boot == boot_id() else None
        return found is not None and found.ticks == self.ticks and found.state not in "ZX"

    def age_seconds(self) -> float:
        """Seconds since it started, if it runs."""
        return seconds_since_boot() - self.ticks / os.sysconf("SC_CLK_TCK")

    def processor_seconds(self) -> float | None:
        """Time that it has had of processors; ``None`` once it is gone."""
        found = _stat(self.pid) if self.is_alive() else None
        return None if found is None else found.used / os.sysconf("SC_CLK_TCK")

    def arguments(self) -> tuple[str, ...]:
        """Its command line; empty once it is gone."""
        return command_line(self.pid) if self.is_alive() else ()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it is gone."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, *, seconds: float = 5.0) -> None:
        """End the process at once and wait until it is gone."""
        self.send(signal.SIGKILL)
        wait_until_gone([self], seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class LeftServer:
    """A server that an agent started here, found by its command line."""

    identity: ProcessIdentity
    shared_memory_prefix: str
    runtime: Path | None


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


def command_line(pid: int) -> tuple[str, ...]:
    """The arguments of process ``pid``; empty if it has none, is gone, or may not be seen."""
    try:
        text = (PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(text.decode(errors="replace").rstrip("\0").split("\0")) if text else ()


def prefix_in(arguments: Iterable[str]) -> str | None:
    """The shared memory prefix that we gave the server with this command line."""
    return next((match[1] for argument in arguments if (match := _PREFIX_OPTION.match(argument))), None)


def left_servers(model_repository: Path) -> tuple[LeftServer, ...]:
    """Running servers of this user that an agent started on ``model_repository``.

    Their command line says so: it holds a prefix that only we give. Whoever holds the lock of the directory knows that
    their agent is gone.
    """
    wanted = f"--model-repository={model_repository}"
    found = []
    for pid, stat in _all():
        if not stat.name.startswith(SERVER[:15]):
            continue
        arguments = command_line(pid)
        prefix = prefix_in(arguments)
        if prefix is None or wanted not in arguments or not _is_of_this_user(pid):
            continue
        backends = next((text.partition("=")[2] for text in arguments if text.startswith("--backend-directory=")), "")
        found.append(
            LeftServer(
                identity=ProcessIdentity(pid=pid, ticks=stat.ticks, boot=boot_id()),
                shared_memory_prefix=prefix,
                runtime=Path(backends).parent if backends else None,
            )
        )
    return tuple(found)


def stubs_of(server: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
    """The Python backend's stubs that ``server`` started: the running ones, one for each instance of a model."""
    if not server.is_alive():
        return ()
    return tuple(
        ProcessIdentity(pid=pid, ticks=stat.ticks, boot=server.boot)
        for pid, stat in _all()
        if stat.parent == server.pid and stat.name.startswith(STUB[:15]) and stat.state not in "ZX"
    )


def stub_of_version(server: ProcessIdentity, version: int) -> ProcessIdentity | None:
    """The running stub of ``server`` that computes ``version``: its command line names the version's model.

    The newest one: a stub of an earlier load of the same version may still be on its way out.
    """
    found = [
        stub
        for stub in stubs_of(server)
        if any(Path(argument).parent.name == str(version) for argument in stub.arguments()[1:2])
    ]
    return max(found, key=lambda stub: (stub.ticks, stub.pid), default=None)


def orphaned_stubs(prefix: str) -> tuple[ProcessIdentity, ...]:
    """Stubs that outlived their server: those whose command line names our shared memory ``prefix``."""
    return tuple(
        ProcessIdentity(pid=pid, ticks=stat.ticks, boot=boot_id())
        for pid, stat in _all()
        if stat.name.startswith(STUB[:15]) and any(argument.startswith(prefix) for argument in command_line(pid))
    )


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


def _all() -> Iterator[tuple[int, _Stat]]:
    for path in PROCESSES.iterdir():
        if path.name.isdecimal() and (stat := _stat(int(path.name))) is not None:
            yield int(path.name), stat


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROCESSES / str(pid) / "stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    # The name may hold spaces and parentheses.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    used = int(fields[11]) + int(fields[12])
    return _Stat(name=name, state=fields[0], parent=int(fields[1]), used=used, ticks=int(fields[19]))


def _is_of_this_user(pid: int) -> bool:
    try:
        return (PROCESSES / str(pid)).stat().st_uid == os.geteuid()
    except OSError:
        return False
