"""Endpoint of a Triton: its addresses, its key, and its process where that is known."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgefolio.components import TRITON_IMAGE, WHEEL_TRITON, version_numbers
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio_edge.triton.client import AccessKey, ControlError, TritonControl
from edgefolio_edge.triton.processes import ProcessIdentity, stub_of_version, stubs_of
from edgefolio_edge.triton.room import is_short_of_shared_memory, lack_of_room

#: A process that loads uses a processor within this time, however busy the machine is.
_PROGRESS_SECONDS = 5.0
#: What one that waits uses in that time at most: its heartbeats are sometimes counted as a tick or two of 10 ms.
_HEARTBEAT_SECONDS = 0.025
_FIELD = "--endpoint"
_KEY_FIELD = "--endpoint-key-file"
_ADDRESS = re.compile(r"^(?:grpc://)?(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/?$")


@dataclass(frozen=True, kw_only=True)
class TritonEndpoint:
    """Addresses as ``host:port``. ``process`` is the server's, where it runs on this machine and is known.

    ``version`` is what the server says of itself. ``has_our_backend`` tells whether models run in our Python-based
    backend, which compares probes while loading.
    """

    grpc: str
    http: str | None
    metrics: str | None
    key: AccessKey | None
    process: ProcessIdentity | None
    has_our_backend: bool
    version: str = ""

    def control(self) -> TritonControl:
        """A new control client."""
        return TritonControl(self.grpc, key=self.key)

    def lacks_backend_of(self, version: int) -> bool:
        """Whether the backend process of ``version`` is missing. Only a hint: an inference decides."""
        if not self.has_our_backend or self.process is None:
            return False
        return stub_of_version(self.process, version) is None

    def lack_of_room(self, manifest: Manifest) -> str | None:
        """Why one more version of ``manifest`` finds no room in shared memory; ``None`` if it does, or is not known."""
        if not self.has_our_backend or self.process is None:
            return None
        return lack_of_room(manifest, self.process)

    def is_short_of_shared_memory(self, manifest: Manifest) -> bool:
        """Whether requests may fail for want of shared memory alone."""
        return self.has_our_backend and self.process is not None and is_short_of_shared_memory(manifest)

    def is_loading(self, version: int, seconds: float) -> bool:
        """Whether the backend process of ``version`` makes progress, and has not used a processor for ``seconds``.

        Returns as soon as that is known: one that is not there may be about to start.
        """
        if self.process is None or not self.has_our_backend:
            return False
        seen: dict[ProcessIdentity, float] = {}
        deadline = time.monotonic() + _PROGRESS_SECONDS
        while time.monotonic() < deadline:
            stub = stub_of_version(self.process, version)
            used = None if stub is None else stub.processor_seconds()
            if stub is not None and used is not None:
                if used >= seconds:
                    return False
                if used > seen.setdefault(stub, used) + _HEARTBEAT_SECONDS:
                    return True
            time.sleep(0.1)
        return False

    def end_backend_of(self, version: int) -> bool:
        """End the hung load of ``version`` by killing its backend process. Returns whether there is none any more.

        One that died before Triton heard of it leaves a load that never ends (Triton 2.51; longer than 3 min); one that
        died later has ended its load.
        """
        if not self.has_our_backend or self.process is None:
            return False
        stub = stub_of_version(self.process, version)
        if stub is not None:
            stub.kill()
        return True


def host_and_port(address: str) -> str:
    """``host:port`` of ``grpc://host:port``. Raises :class:`UserError` for anything else."""
    match = _ADDRESS.match(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise UserError(
            "this is not the address of a gRPC service.",
            field=_FIELD,
            value=address,
            remedy="Write grpc://host:port, for instance grpc://127.0.0.1:8001.",
        )
    return f"{match['host']}:{match['port']}"


def attach(address: str, *, key: AccessKey | None = None, metrics: str | None = None) -> TritonEndpoint:
    """The running Triton at ``address`` (``grpc://host:port``), NVIDIA's image included.

    Raises :class:`UserError` if it is no address, nothing answers, the Triton is too old, or it wants a key.
    """
    endpoint = host_and_port(address)
    host, _, port = endpoint.rpartition(":")
    absent = UserError(
        "no Triton answers there.",
        field=_FIELD,
        value=address,
        remedy="Start it with --model-control-mode=explicit, or leave the option out to start one here.",
    )
    control = TritonControl(endpoint, key=key)
    try:
        version = control.server_version()
    except ControlError as error:
        control.close()
        raise absent from error
    try:
        control.ready_versions("")
    except ControlError as error:
        if error.unreachable or error.timed_out:
            raise absent from error
        raise UserError(
            f"that Triton does not let itself be controlled: {error}",
            field=_KEY_FIELD,
            remedy="Name a file with the name=secret of its --grpc-restricted-protocol for model-repository.",
        ) from error
    finally:
        control.close()
    if version_numbers(version) < version_numbers(WHEEL_TRITON):
        raise UserError(
            f"this Triton is older than {WHEEL_TRITON}, the oldest that was tried.",
            field=_FIELD,
            value=version,
            remedy=f"Run a newer Triton, for instance {TRITON_IMAGE}.",
        )
    process = _listening_process(host, int(port))
    return TritonEndpoint(
        grpc=endpoint,
        http=None,
        metrics=metrics,
        key=key,
        process=process,
        has_our_backend=process is not None and bool(stubs_of(process)),
        version=version,
    )


def read_key(path: Path) -> AccessKey:
    """The key in a file that holds ``name=secret``, as Triton's restriction options take it."""
    try:
        name, separator, secret = path.read_text().strip().partition("=")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "the file cannot be read.", field=_KEY_FIELD, value=path, remedy="Name a file to read."
        ) from error
    if not separator or not name or not secret:
        raise UserError(
            "the file does not hold a key.", field=_KEY_FIELD, value=path, remedy="Write one line: name=secret."
        )
    return AccessKey(name=name, secret=secret)


def _listening_process(host: str, port: int) -> ProcessIdentity | None:
    """The process behind a loopback address, if it may be seen."""
    if host not in {"127.0.0.1", "localhost", "[::1]"}:
        return None
    try:
        for connection in psutil.net_connections(kind="tcp"):
            address = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and len(address) == 2 and address.port == port
            if listens and connection.pid:
                return ProcessIdentity.of(psutil.Process(connection.pid))
    except psutil.Error:
        return None
    return None
