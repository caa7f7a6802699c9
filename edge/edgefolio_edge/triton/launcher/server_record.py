"""Record of a running server on disk, so that an agent that was killed adopts it and clients notice nothing.

The file holds the server's key: only its owner may read it. Where the record is lost or damaged, the server is known by
its command line and is ended: without its key nobody controls it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgefolio.files import write_durably
from edgefolio_edge.process.stored_json import damaged, read_object, remove_partial_files
from edgefolio_edge.triton.client import AccessKey
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.ports import Ports
from edgefolio_edge.triton.launcher.server import TritonServer, end_left_server
from edgefolio_edge.triton.processes import (
    ProcessIdentity,
    command_line,
    left_servers,
    prefix_in,
    remove_remains,
)

FILE_NAME = "server.json"


def write_record(server: TritonServer, directory: Path) -> None:
    """Record ``server`` in ``directory``."""
    settings, worker_folder = asdict(server.settings), server.settings.worker_folder
    document = {
        "settings": {
            **settings,
            "model_repository": str(server.settings.model_repository),
            "worker_folder": None if worker_folder is None else str(worker_folder),
        },
        "ports": asdict(server.ports),
        "key": asdict(server.key),
        # The time is for people, and for agents of earlier versions; ``start`` identifies the process.
        "identity": {"pid": server.identity.pid, "started": time.time() - server.identity.age_seconds()},
        "start": {"ticks": server.identity.ticks, "boot": server.identity.boot},
        "gateway": None if server.gateway is None else asdict(server.gateway),
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
    path = directory / FILE_NAME
    document = read_object(path)
    if document is None:
        return None
    try:
        settings, prefix = document["settings"], str(document["shared_memory_prefix"])
        # Earlier versions had none.
        worker_folder = settings.get("worker_folder")
        return TritonServer(
            settings=ServerSettings(
                model_repository=Path(settings["model_repository"]),
                ports=Ports(**settings["ports"]),
                address=settings["address"],
                threads=settings["threads"],
                die_with_parent=settings["die_with_parent"],
                worker_folder=None if worker_folder is None else Path(worker_folder),
            ),
            ports=Ports(**document["ports"]),
            key=AccessKey(**document["key"]),
            identity=_identity(document, prefix),
            runtime=Path(document["runtime"]),
            shared_memory_prefix=prefix,
            gateway=_gateway(document),
        )
    except (ValueError, KeyError, TypeError) as error:
        damaged(path, error)
        return None


def start_or_adopt(settings: ServerSettings, directory: Path) -> tuple[TritonServer, bool]:
    """The server recorded in ``directory``, if it runs, answers and has the same settings; else a new one.

    Those that cannot be used are ended first, also where nothing records them, and their remains are removed; the
    caller holds ``directory``, so no other agent has them. Returns the server and whether it was adopted. Raises
    :class:`~edgefolio.errors.UserError` as :meth:`TritonServer.start` does.
    """
    remove_partial_files(directory, FILE_NAME)
    found = recorded_server(directory)
    if found is not None:
        if _usable(found, settings):
            _end_others(found, settings)
            if not found.has_gateway():
                found = found.with_gateway()
                write_record(found, directory)
            return found, True
        found.stop(seconds=1)
        remove_remains(found.shared_memory_prefix)
        remove_record(directory)
    _end_others(None, settings)
    server = TritonServer.start(settings)
    try:
        write_record(server, directory)
    except BaseException:
        server.stop()
        raise
    return server, False


def _identity(document: dict[str, Any], prefix: str) -> ProcessIdentity:
    pid, start = int(document["identity"]["pid"]), document.get("start")
    if start is not None:
        return ProcessIdentity(pid=pid, ticks=int(start["ticks"]), boot=str(start["boot"]))
    # Earlier versions wrote wall time alone, which moves with the clock: the command line tells whether it is ours.
    if prefix_in(command_line(pid)) != prefix:
        return ProcessIdentity.of_none(pid)
    return ProcessIdentity.of_running(pid) or ProcessIdentity.of_none(pid)


def _gateway(document: dict[str, Any]) -> ProcessIdentity | None:
    found = document.get("gateway")
    if found is None:
        return None
    return ProcessIdentity(pid=int(found["pid"]), ticks=int(found["ticks"]), boot=str(found["boot"]))


def _end_others(kept: TritonServer | None, settings: ServerSettings) -> None:
    """End servers on our model repository but ``kept``: an agent was killed before it had written its record."""
    for left in left_servers(settings.model_repository):
        if kept is None or left.identity != kept.identity:
            end_left_server(left)


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
    # Servers of earlier versions served HTTP themselves.
    if not same or not server.is_alive() or (server.ports.http is not None and server.gateway is None):
        return False
    control = server.control()
    try:
        return control.is_live()
    finally:
        control.close()
