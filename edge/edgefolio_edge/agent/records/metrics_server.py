"""An HTTP server of Prometheus metrics, bounded in what clients can hold of it."""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from edgefolio.errors import UserError

#: Scrapes at a time; a thousand idle connections must not become a thousand threads.
MOST_CONNECTIONS = 16
#: Seconds for a client to send its request.
REQUEST_SECONDS = 5.0


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a bounded number of connections; those beyond are closed."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none of the agent's faults."""


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


class MetricsServer:
    """Serves one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def serve(self, port: int, *, address: str = "127.0.0.1", field: str) -> int:
        """Serve them at ``port`` (0: any free one) and return the port. Raises :class:`UserError` if it is taken."""
        try:
            self._server = make_server(
                address,
                port,
                make_wsgi_app(self._registry),
                server_class=_ServerOfIPv6 if ":" in address else _Server,
                handler_class=_Handler,
            )
        except OSError as error:
            raise UserError(
                f"the agent cannot listen at {address} port {port} ({error.strerror or error}).",
                field=field,
                value=port,
                remedy="Stop what listens there, or choose another port; 0 takes any free one.",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving them."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(timeout=5)
            self._server = None
