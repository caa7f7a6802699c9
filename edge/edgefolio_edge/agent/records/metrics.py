"""The agent's Prometheus metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edgefolio.decision.types import Decision, Observation
from edgefolio_edge.agent.records.metrics_server import MetricsServer


class AgentMetrics:
    """Metrics of one agent, in a registry of its own."""

    def __init__(self, *, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._server = MetricsServer(self.registry)
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
        return self._server.serve(port, address=address, field=field)

    def close(self) -> None:
        """Stop serving them."""
        self._server.close()

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
