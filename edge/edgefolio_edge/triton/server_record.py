"""Record of a running server on disk, so that an agent that was killed adopts it and clients notice nothing.

The file holds the server's key: only its owner may read it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from edgefolio.files import write_durably
from edgefolio_edge.triton.client import AccessKey
from edgefolio_edge.triton.ports import Ports
from edgefolio_edge.triton.processes import ProcessIdentity, remove_remains
from edgefolio_edge.triton.server import ServerSettings, TritonServer

FILE_NAME = "server.json"


def write_record(server: TritonServer, directory: Path) -> None:
    """Record ``server`` in ``directory``."""
    settings = asdict(server.settings)
    document = {
        "settings": {**settings, "model_repository": str(server.settings.model_repository)},
        "ports": asdict(server.ports),
        "key": asdict(server.key),
        "identity": asdict(server.identity),
        "runtime": str(server.runtime),
        "shared_memory_prefix": server.shared_memory_prefix,
    }
    previous = os.umask(0o077)
    try:
        write_durably(directory / FILE_NAME, json.dumps(document).encode(), field="--state-dir")
    finally:
        os.umask(previous)


def remove_record(directory: Path) -> None:
    """Remove the record in ``directory``."""
    (directory / FILE_NAME).unlink(missing_ok=True)


def recorded_server(directory: Path) -> TritonServer | None:
    """The server recorded in ``directory``, alive or not; ``None`` if there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads((directory / FILE_NAME).read_bytes())
        settings = document["settings"]
        return TritonServer(
            settings=ServerSettings(
                model_repository=Path(settings["model_repository"]),
                ports=Ports(**settings["ports"]),
                address=settings["address"],
                threads=settings["threads"],
                die_with_parent=settings["die_with_parent"],
            ),
            ports=Ports(**document["ports"]),
            key=AccessKey(**document["key"]),
            identity=ProcessIdentity(**document["identity"]),
            runtime=Path(document["runtime"]),
            shared_memory_prefix=document["shared_memory_prefix"],
        )
    return None


def start_or_adopt(settings: ServerSettings, directory: Path) -> tuple[TritonServer, bool]:
    """The server recorded in ``directory``, if it runs, answers and has the same settings; else a new one.

    The remains of one that cannot be used are removed first. Returns the server and whether it was adopted. Raises
    :class:`~edgefolio.errors.UserError` as :meth:`TritonServer.start` does.
    """
    found = recorded_server(directory)
    if found is not None:
        if _usable(found, settings):
            return found, True
        # Process id, start time and the prefix prove that it was ours.
        found.stop(seconds=1)
        remove_remains(found.shared_memory_prefix)
        remove_record(directory)
    server = TritonServer.start(settings)
    try:
        write_record(server, directory)
    except BaseException:
        server.stop()
        raise
    return server, False


def _usable(server: TritonServer, settings: ServerSettings) -> bool:
    same = (
        server.settings.model_repository == settings.model_repository
        and server.settings.address == settings.address
        and server.settings.threads == settings.threads
        and all(
            wanted == found or (wanted == 0 and found is not None)
            for wanted, found in (
                (settings.ports.http, server.ports.http),
                (settings.ports.grpc, server.ports.grpc),
                (settings.ports.metrics, server.ports.metrics),
            )
        )
    )
    if not same or not server.is_alive():
        return False
    control = server.control()
    try:
        return control.is_live()
    finally:
        control.close()
