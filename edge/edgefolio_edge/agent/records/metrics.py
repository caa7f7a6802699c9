"""The agent's Prometheus metrics."""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from edgefolio.decision.types import Decision, Observation
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


class AgentMetrics:
    """Metrics of one agent, in a registry of its own."""

    def __init__(self, *, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self.decisions = self._metric(Counter, "edgefolio_decisions", "Decisions by what they say.", "action", "reason")
        self.switches = self._metric(Counter, "edgefolio_switches", "Switches by how they ended.", "outcome")
        self.switch_duration = Histogram(
            "edgefolio_switch_duration_seconds",
            "From the load request until the canary was answered.",
            ["model"],
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.variant = self._metric(
            Gauge, "edgefolio_endpoint_variant_info", "1 for the variant that serves.", "variant", "version"
        )
        self.objective_violated = self._metric(
            Gauge, "edgefolio_objective_violated", "1 while the objectives are not met."
        )
        self.compute_factor = self._metric(Gauge, "edgefolio_compute_factor_ratio", "Compute time over the profile's.")
        self.arrival_rate = self._metric(Gauge, "edgefolio_arrival_rate_hertz", "Requests per second in the window.")
        self.compute = self._metric(
            Gauge, "edgefolio_request_compute_seconds", "Mean compute time per request in the window."
        )
        self.queue = self._metric(Gauge, "edgefolio_request_queue_seconds", "Mean queue time per request.")
        self.working_set = self._metric(Gauge, "edgefolio_server_working_set_bytes", "Memory of the server.")
        self.refused = self._metric(
            Gauge, "edgefolio_revision_refused", "1 while a published revision is refused: corrupt, or too large."
        )
        self.restarts = self._metric(
            Counter, "edgefolio_server_repairs", "Servers restarted and backends repaired.", "kind"
        )

    def serve(self, port: int, *, address: str = "127.0.0.1", field: str = "--agent-metrics-port") -> int:
        """Serve them at ``port`` (0: any free one) and return the port. Raises :class:`UserError` if it is taken."""
        try:
            self._server = make_server(
                address,
                port,
                make_wsgi_app(self.registry),
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

    def observed(self, observation: Observation, decision: Decision) -> None:
        """Set the metrics of one cycle."""
        self.decisions.labels(self._model, decision.action.value, decision.reason.value).inc()
        if decision.objectives_met is not None:
            self.objective_violated.labels(self._model).set(0 if decision.objectives_met else 1)
        if decision.compute_factor is not None:
            self.compute_factor.labels(self._model).set(decision.compute_factor)
        traffic, memory = observation.traffic, observation.memory
        if traffic is not None:
            self.arrival_rate.labels(self._model).set(traffic.requests / traffic.seconds if traffic.seconds else 0)
            self.compute.labels(self._model).set(traffic.mean_compute_milliseconds / 1e3)
            self.queue.labels(self._model).set(traffic.mean_queue_milliseconds / 1e3)
        if memory is not None and memory.working_set_bytes is not None:
            self.working_set.labels(self._model).set(memory.working_set_bytes)

    def serving(self, variant: str | None, version: int | None) -> None:
        """Mark ``variant`` as the only one that serves."""
        self.variant.clear()
        if variant is not None:
            self.variant.labels(self._model, variant, str(version)).set(1)

    def switched(self, *, succeeded: bool, seconds: float) -> None:
        """Count a switch."""
        self.switches.labels(self._model, "success" if succeeded else "failure").inc()
        self.switch_duration.labels(self._model).observe(seconds)

    def refusing(self, refused: bool) -> None:
        """Set whether a revision is refused."""
        self.refused.labels(self._model).set(1 if refused else 0)

    def repaired(self, kind: str) -> None:
        """Count a restart of ``server`` or ``gateway`` (HTTP), or a repair of a ``backend``: the ``kind``."""
        self.restarts.labels(self._model, kind).inc()

    def _metric(self, kind: Any, name: str, text: str, *labels: str) -> Any:
        return kind(name, text, ["model", *labels], registry=self.registry)
