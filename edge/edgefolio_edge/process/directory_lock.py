"""Machine-wide locks: one agent per server and state directory; they end with their process.

Of concurrent loads the last to finish wins, so two agents on one Triton would undo each other's switches.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from edgefolio.errors import UserError
from edgefolio.files import make_folder


@contextlib.contextmanager
def only_writer_of_endpoint(endpoint: str, *, field: str = "--endpoint") -> Iterator[None]:
    """Hold the right to control the Triton at ``endpoint`` (``host:port``) while the context lasts.

    The lock is a name in the kernel's abstract socket namespace: it ends with the process, however that ends, and shows
    who holds it. Raises :class:`UserError` with the other agent's process id.
    """
    name = f"\0edgefolio-endpoint-{_canonical(endpoint)}"
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            holder.bind(name)
            holder.listen(8)
        except OSError as error:
            raise _occupied("Triton", endpoint, field=field, other=_listening_process(name)) from error
        yield
    finally:
        holder.close()


@contextlib.contextmanager
def only_writer_of_directory(directory: Path) -> Iterator[None]:
    """Hold ``directory`` (made if it is missing) while the context lasts, also against other containers.

    Raises :class:`UserError` with the other agent's process id.
    """
    make_folder(directory, field="--state-dir")
    path = directory / "agent.lock"
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            text = stream.read().strip()
            other = int(text) if text.isdecimal() else None
            raise _occupied("state directory", str(directory), field="--state-dir", other=other) from error
        stream.seek(0)
        stream.truncate()
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield


def _canonical(endpoint: str) -> str:
    host, _, port = endpoint.rpartition(":")
    return f"{'127.0.0.1' if host in {'localhost', '0.0.0.0', '[::1]', '::1', ''} else host}:{port}"


def _listening_process(name: str) -> int | None:
    """The process that listens at ``name``, as the kernel knows it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        connection.connect(name)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process: int = struct.unpack("3i", credentials)[0]
        return process
    return None


def _occupied(what: str, value: str, *, field: str, other: int | None) -> UserError:
    who = "another agent" if other is None else f"another agent (process {other})"
    return UserError(
        f"{who} already controls this {what}; two would undo each other's switches.",
        field=field,
        value=value,
        remedy="Stop the other agent, or give this one its own Triton (other ports) and --state-dir.",
    )
