"""Triton as the agent's host: one that it starts and restarts, or one that others run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from edgefolio.errors import UserError
from edgefolio_edge.process.directory_lock import only_writer_of_endpoint
from edgefolio_edge.triton.endpoint import TritonEndpoint, attach, host_and_port, read_key
from edgefolio_edge.triton.launcher.command_line import ServerSettings
from edgefolio_edge.triton.launcher.server import STOP_SECONDS, TritonServer
from edgefolio_edge.triton.launcher.server_record import recorded_server, remove_record, start_or_adopt, write_record

#: Back-off between restarts of a server that keeps dying.
RESTART_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


class Host:
    """One Triton. ``server`` is ``None`` where others run it."""

    def __init__(
        self,
        endpoint: TritonEndpoint,
        *,
        server: TritonServer | None = None,
        directory: Path | None = None,
        find: Callable[[], TritonEndpoint] | None = None,
    ) -> None:
        """``find`` looks for a server that is not ours; it raises :class:`UserError` while there is none."""
        self.endpoint = endpoint
        self.server = server
        self.adopted = False
        self._directory = directory
        self._find = find
        self._is_lost = False
        self._was_found = False
        self._failures = 0
        self._not_before = 0.0

    @classmethod
    @contextlib.contextmanager
    def own(cls, settings: ServerSettings, directory: Path) -> Iterator[Host]:
        """A server that is started, or found again, for the context, and stopped with it.

        Raises :class:`UserError` if another agent has the ports, a port is taken, or Triton cannot be started.
        """
        field = "--grpc-port"
        with contextlib.ExitStack() as stack:
            if settings.ports.grpc:
                stack.enter_context(_writer(settings, settings.ports.grpc, field=field))
            server, adopted = start_or_adopt(settings, directory)
            host = cls(server.endpoint(), server=server, directory=directory)
            host.adopted = adopted
            try:
                if not settings.ports.grpc:
                    stack.enter_context(_writer(settings, server.ports.grpc, field=field))
                yield host
            finally:
                host.stop()

    @classmethod
    @contextlib.contextmanager
    def attached(cls, address: str, *, key_file: Path | None, metrics: str | None = None) -> Iterator[Host]:
        """A server that runs at ``grpc://host:port`` and is not stopped with the context.

        Raises :class:`UserError` if another agent controls it, or it cannot be attached to.
        """
        with cls.awaited(address, key_file=key_file, metrics=metrics) as host:
            host.find_again()
            yield host

    @classmethod
    @contextlib.contextmanager
    def awaited(cls, address: str, *, key_file: Path | None, metrics: str | None = None) -> Iterator[Host]:
        """A server that others start at ``grpc://host:port``, at any time, and restart when it ends.

        Raises :class:`UserError` if another agent controls it.
        """

        def find() -> TritonEndpoint:
            key = read_key(key_file) if key_file is not None else None
            return attach(address, key=key, metrics=metrics)

        place = host_and_port(address)
        unknown = TritonEndpoint(grpc=place, http=None, metrics=metrics, key=None, process=None, has_our_backend=False)
        with only_writer_of_endpoint(place):
            host = cls(unknown, find=find)
            host.lose()
            yield host

    @property
    def is_ours(self) -> bool:
        """Whether we start and stop the server."""
        return self.server is not None

    @property
    def was_found(self) -> bool:
        """Whether a server that is not ours was attached to before."""
        return self._was_found

    def is_alive(self) -> bool:
        """Whether the server's process runs, as far as is known."""
        if self.server is not None:
            return self.server.is_alive()
        return not self._is_lost and (self.endpoint.process is None or self.endpoint.process.is_alive())

    def has_gateway(self) -> bool:
        """Whether our server's HTTP gateway runs; also where none is asked for, or the server is another's."""
        return self.server is None or self.server.has_gateway()

    def restart_gateway(self) -> None:
        """Start our server's gateway again. Raises :class:`UserError` if it does not answer."""
        assert self.server is not None
        self.server = self.server.with_gateway()
        if self._directory is not None:
            write_record(self.server, self._directory)

    def lose(self) -> None:
        """Note that another's server is gone: the next one must be attached to."""
        self._is_lost = True

    def find_again(self) -> None:
        """Attach to the server that answers at our address now. Raises :class:`UserError` if none does."""
        assert self._find is not None
        self.endpoint = self._find()
        self._is_lost = False
        self._was_found = True

    def log_tail(self) -> str:
        """The last lines of our server's log."""
        return "" if self.server is None else self.server.log_tail(3)

    def may_restart(self) -> bool:
        """Whether the server is ours and its back-off is over."""
        return self.server is not None and time.monotonic() >= self._not_before

    def restart(self, *, seconds: float = STOP_SECONDS) -> None:
        """Restart our server on the same ports; the old one gets ``seconds`` to stop.

        Raises :class:`UserError`; the next attempt waits longer.
        """
        assert self.server is not None
        assert self._directory is not None
        self._failures += 1
        wait = RESTART_SECONDS[min(self._failures, len(RESTART_SECONDS) - 1)]
        self._not_before = time.monotonic() + wait
        self.server.stop(seconds=seconds)
        self.server = TritonServer.start(replace(self.server.settings, ports=self.server.ports))
        self.endpoint = self.server.endpoint()
        self.adopted = False
        write_record(self.server, self._directory)

    def reset_backoff(self) -> None:
        """Reset the back-off of restarts: the server serves."""
        self._failures = 0
        self._not_before = 0.0

    def stop(self) -> None:
        """Stop our server and remove its record; leave another's alone."""
        if self.server is not None:
            self.server.stop()
            if self._directory is not None:
                remove_record(self._directory)


def _writer(settings: ServerSettings, port: int, *, field: str) -> contextlib.AbstractContextManager[None]:
    return only_writer_of_endpoint(f"{settings.address}:{port}", field=field)


def require_no_server_of_another_kind(directory: Path) -> None:
    """Raise :class:`UserError` if ``directory`` remembers a running server that an attached agent would leave."""
    found = recorded_server(directory)
    if found is not None and found.is_alive():
        raise UserError(
            f"the state directory belongs to an agent that started its own Triton (process {found.identity.pid}).",
            field="--state-dir",
            value=directory,
            remedy="Give the agent that attaches a state directory of its own.",
        )
