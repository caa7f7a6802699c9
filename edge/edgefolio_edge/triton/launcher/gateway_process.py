"""Process of the HTTP gateway beside a server: started, found again, and ended."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import edgefolio
import edgefolio_edge
from edgefolio_edge.triton.launcher import children
from edgefolio_edge.triton.processes import PROCESSES, ProcessIdentity, command_line, wait_until_gone

__all__ = ["LOG_NAME", "end_gateway", "gateways_of", "start_gateway"]

LOG_NAME = "http.log"
START_SECONDS = 30.0
_MODULE = "edgefolio_edge.http_gateway"
#: What the gateway needs of this process's environment; credentials are not its business.
_INHERITED = re.compile(r"^(PATH|PYTHONHOME|HOME|LANG|LC_.*|TZ|TMPDIR)$")


def start_gateway(
    *, server: ProcessIdentity, address: str, port: int, grpc: str, runtime: Path
) -> ProcessIdentity | None:
    """Start the gateway of ``server``, with which it ends, and wait until it listens; ``None`` if it does not."""
    environment = {name: value for name, value in os.environ.items() if _INHERITED.match(name)}
    # It finds this code where this process did, and imports nothing that somebody's PYTHONPATH brings in.
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(_folder_of(room) for room in (edgefolio, edgefolio_edge)))
    readable, writable = os.pipe()
    command = [
        *(sys.executable, "-m", _MODULE, f"--address={address}", f"--port={port}", f"--grpc={grpc}"),
        *(f"--server-pid={server.pid}", f"--server-ticks={server.ticks}", f"--ready-descriptor={writable}"),
    ]
    try:
        with (runtime / LOG_NAME).open("ab") as log:
            # In a session of its own: Ctrl-C goes to the agent, which ends it once requests are answered.
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=runtime,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[writable],
            )
        children.keep(process)
        os.close(writable)
        writable = -1
        # It says so itself: a connection could be taken by a gateway before it that is on its way out.
        is_ready = bool(select.select([readable], [], [], START_SECONDS)[0]) and os.read(readable, 1) != b""
    finally:
        os.close(readable)
        if writable >= 0:
            os.close(writable)
    gateway = ProcessIdentity.of_running(process.pid) or ProcessIdentity.of_none(process.pid)
    if not is_ready:
        end_gateway(gateway, seconds=0)
        return None
    return gateway


def _folder_of(room: ModuleType) -> str:
    """The folder from which a package is imported."""
    return str(Path(room.__path__[0]).parent)


def end_gateway(gateway: ProcessIdentity, *, seconds: float) -> None:
    """End it; requests under way get ``seconds``."""
    gateway.send(signal.SIGTERM)
    if not wait_until_gone([gateway], seconds=seconds):
        gateway.kill()
    children.reap(gateway)


def gateways_of(server: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
    """The running gateways of ``server``, found by their command lines: no record names them."""
    wanted = {_MODULE, f"--server-pid={server.pid}", f"--server-ticks={server.ticks}"}
    found = []
    for path in PROCESSES.iterdir():
        if path.name.isdecimal() and wanted <= set(command_line(int(path.name))):
            identity = ProcessIdentity.of_running(int(path.name))
            if identity is not None:
                found.append(identity)
    return tuple(found)
