"""Triton server from the wheel, with an HTTP gateway where asked for: started, and stopped without remains."""

from __future__ import annotations

import logging
import secrets
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from edgefolio.errors import UserError
from edgefolio_edge.triton.client import AccessKey, TritonControl
from edgefolio_edge.triton.endpoint import TritonEndpoint
from edgefolio_edge.triton.launcher import children, secret_options
from edgefolio_edge.triton.launcher.command_line import (
    EXIT_SECONDS,
    LOOPBACK,
    ServerSettings,
    arguments,
    secret_arguments,
)
from edgefolio_edge.triton.launcher.gateway_process import LOG_NAME as GATEWAY_LOG
from edgefolio_edge.triton.launcher.gateway_process import end_gateway, gateways_of, start_gateway
from edgefolio_edge.triton.launcher.ports import Ports, settle_ports
from edgefolio_edge.triton.launcher.wheel import (
    TRITON_VERSION,
    environment_for,
    lay_out_backends,
    lay_out_python,
    locate_wheel,
)
from edgefolio_edge.triton.processes import (
    LeftServer,
    ProcessIdentity,
    remove_remains,
    stubs_of,
    wait_until_gone,
)

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
#: After this it is killed.
STOP_SECONDS = EXIT_SECONDS + 2.0
KEY_NAME = "edgefolio-key"
LOG_NAME = "triton.log"
_RUNTIME_PREFIX = "edgefolio-triton-"


@dataclass(frozen=True, kw_only=True)
class TritonServer:
    """A server that was started here. ``runtime`` holds its backends and its log and is removed with it.

    ``gateway`` is the process that serves HTTP in front of it, where ``ports`` has a port for that.
    """

    settings: ServerSettings
    ports: Ports
    key: AccessKey
    identity: ProcessIdentity
    runtime: Path
    shared_memory_prefix: str
    gateway: ProcessIdentity | None = None

    @classmethod
    def start(cls, settings: ServerSettings) -> TritonServer:
        """Start a server without models and wait until it answers.

        Raises :class:`UserError` if Triton is absent or of another version, a port is taken, or the server dies.
        """
        wheel = locate_wheel()
        ports = settle_ports(settings.ports, address=settings.address)
        key = AccessKey(name=KEY_NAME, secret=secrets.token_hex(24))
        prefix = f"edgefolio_{secrets.token_hex(8)}_"
        runtime = Path(tempfile.mkdtemp(prefix=_RUNTIME_PREFIX))
        try:
            backends = lay_out_backends(wheel, runtime / "backends")
            executables = lay_out_python(runtime / "python")
            temporary = runtime / "temporary"
            temporary.mkdir()
            environment = environment_for(
                wheel,
                threads=settings.threads,
                executables=executables,
                temporary=temporary,
                worker_folder=settings.worker_folder,
            )
            settings.model_repository.mkdir(parents=True, exist_ok=True)
            command = [
                str(wheel.server),
                *arguments(settings, ports=ports, backends=backends, shared_memory_prefix=prefix),
            ]
            with (runtime / LOG_NAME).open("wb") as log:
                process, is_hidden = secret_options.start(
                    command,
                    secret_arguments(key),
                    environment=environment,
                    log=log.fileno(),
                    directory=runtime,
                    die_with_parent=settings.die_with_parent,
                )
            children.keep(process)
            identity = ProcessIdentity.of(psutil.Process(process.pid))
            server = cls(
                settings=settings,
                ports=ports,
                key=key,
                identity=identity,
                runtime=runtime,
                shared_memory_prefix=prefix,
            )
        except BaseException:
            shutil.rmtree(runtime, ignore_errors=True)
            raise
        try:
            server._wait_until_live()
            server._hide_key(was_hidden=is_hidden)
            return server.with_gateway()
        except BaseException:
            server.stop(seconds=1)
            raise

    def has_gateway(self) -> bool:
        """Whether HTTP is served as asked for."""
        if self.gateway is not None:
            children.reap(self.gateway)
        return self.ports.http is None or (self.gateway is not None and self.gateway.is_alive())

    def with_gateway(self) -> TritonServer:
        """This server with a gateway that answers; the one that it has, if that runs.

        Raises :class:`UserError` if it does not answer.
        """
        if self.ports.http is None or self.has_gateway():
            return self
        # Started by an agent that was killed before it had written its record.
        for left in gateways_of(self.identity):
            end_gateway(left, seconds=1)
        gateway = start_gateway(
            server=self.identity,
            address=self.settings.address,
            port=self.ports.http,
            grpc=self.grpc_endpoint,
            runtime=self.runtime,
        )
        if gateway is not None:
            return replace(self, gateway=gateway)
        raise UserError(
            f"the HTTP gateway did not start. The end of its log: {_tail(self.runtime / GATEWAY_LOG, 3) or 'empty'}",
            field="--http-port",
            value=self.ports.http,
            remedy="Choose another port, or serve gRPC alone without this option.",
        )

    @property
    def grpc_endpoint(self) -> str:
        """``host:port`` of the gRPC service."""
        return f"{self._reachable}:{self.ports.grpc}"

    @property
    def http_endpoint(self) -> str | None:
        """``host:port`` of the HTTP service; ``None`` where there is none."""
        return None if self.ports.http is None else f"{self._reachable}:{self.ports.http}"

    @property
    def metrics_endpoint(self) -> str:
        """``host:port`` of the metrics service."""
        return f"{self._reachable}:{self.ports.metrics}"

    @property
    def _reachable(self) -> str:
        """Its address from this machine: loopback for a server that listens everywhere."""
        return LOOPBACK if self.settings.address == "0.0.0.0" else self.settings.address

    def endpoint(self) -> TritonEndpoint:
        """How it is reached."""
        return TritonEndpoint(
            grpc=self.grpc_endpoint,
            http=self.http_endpoint,
            metrics=self.metrics_endpoint,
            key=self.key,
            process=self.identity,
            has_our_backend=True,
            version=TRITON_VERSION,
        )

    def control(self) -> TritonControl:
        """A new control client with the key."""
        return TritonControl(self.grpc_endpoint, key=self.key)

    def is_alive(self) -> bool:
        """Whether the server's process runs. Its backends may be dead all the same."""
        children.reap(self.identity)
        return self.identity.is_alive()

    def stubs(self) -> tuple[ProcessIdentity, ...]:
        """The running stubs: one for each version that is served, and for one that is being loaded."""
        return stubs_of(self.identity)

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of the server's log."""
        return _tail(self.runtime / LOG_NAME, lines)

    def stop(self, *, seconds: float = STOP_SECONDS) -> None:
        """End the server, its stubs, its shared memory and its temporary directory. May be called twice.

        Requests in flight are answered first, for at most :data:`EXIT_SECONDS`.
        """
        if self.gateway is not None:
            # Both at once: it takes nothing new while the server answers what is in flight.
            self.gateway.send(signal.SIGTERM)
        stubs = self.stubs()
        if self.identity.is_alive():
            self.identity.send(signal.SIGTERM)
            if not self._gone_within(seconds):
                self.identity.kill()
        children.reap(self.identity, wait=True)
        if self.gateway is not None:
            end_gateway(self.gateway, seconds=1)
        for stub in stubs:
            stub.kill()
        remove_remains(self.shared_memory_prefix)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            children.reap(self.identity)
            if wait_until_gone([self.identity], seconds=0.1):
                return True
        return False

    def _wait_until_live(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_alive():
                raise self._died_at_start()
            # Triton opens its services one after the other; where they all listen, no port was taken.
            if _listens(self.grpc_endpoint) and _listens(self.metrics_endpoint):
                control = self.control()
                try:
                    if control.is_live():
                        return
                finally:
                    control.close()
            time.sleep(0.02)
        raise UserError(
            f"Triton did not answer within {START_SECONDS:.0f} s. The end of its log: {self.log_tail(3)}",
            field="triton",
            remedy="See whether the machine is overloaded, and start again.",
        )

    def _hide_key(self, *, was_hidden: bool) -> None:
        """Overwrite the key in the memory that others may see, now that Triton has copied it."""
        try:
            secret_options.overwrite(self.identity.pid, [self.key.secret])
        except OSError as error:
            logger.warning("Every local user can read the key of Triton's control interface: %s", error)
            return
        if not was_hidden:
            logger.warning(
                "Until Triton answered, every local user could read the key of its control interface: this kernel "
                "lets no process be traced by its parent (kernel.yama.ptrace_scope above 1?)."
            )

    def _died_at_start(self) -> UserError:
        errors = [line for line in self.log_tail(200).splitlines() if line.startswith("E") or "error" in line.lower()]
        last_words = " / ".join(errors[-3:]) or self.log_tail(3) or "none"
        if "already in use" in last_words:
            return UserError(
                f"a port was taken while Triton started. The end of its log: {last_words}",
                field="--http-port, --grpc-port, --metrics-port",
                value=f"{self.ports.http or 'no HTTP'}, {self.ports.grpc}, {self.ports.metrics}",
                remedy="Start again, or choose other ports; 0 takes any free one.",
            )
        return UserError(
            f"Triton died while it started. The end of its log: {last_words}",
            field="triton",
            remedy="Mend what it says; `pip install --force-reinstall nvidia-pytriton` mends a damaged installation.",
        )


def end_left_server(left: LeftServer) -> None:
    """End a server that nobody controls, its gateway, its stubs, its shared memory and its temporary directory."""
    gateways = gateways_of(left.identity)
    stubs = stubs_of(left.identity)
    left.identity.send(signal.SIGTERM)
    if not wait_until_gone([left.identity], seconds=STOP_SECONDS):
        left.identity.kill()
    for gateway in gateways:
        end_gateway(gateway, seconds=1)
    for stub in stubs:
        stub.kill()
    remove_remains(left.shared_memory_prefix)
    if left.runtime is not None and left.runtime.name.startswith(_RUNTIME_PREFIX):
        shutil.rmtree(left.runtime, ignore_errors=True)


def _tail(log: Path, lines: int) -> str:
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _listens(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False
