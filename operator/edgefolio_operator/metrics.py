"""Prometheus metrics of the operator."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edgefolio.decision.types import Action, Reason


class Metrics:
    """The operator's own metrics; counters that alerts use begin at zero."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "edgefolio_decisions", "Changes of a decision.", ["action", "reason"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            "edgefolio_reconcile_duration_seconds", "One reconciliation of a portfolio.", registry=registry
        )
        self.reconcile_errors = Counter(
            "edgefolio_reconcile_errors", "Reconciliations of a portfolio that ended with an error.", registry=registry
        )
        self.writes = Counter("edgefolio_api_writes", "Writes to the API server.", ["kind"], registry=registry)
        self.leading = Gauge("edgefolio_leading", "Whether this operator acts.", registry=registry)
        self.endpoints = Gauge(
            "edgefolio_endpoints", "Endpoints of a portfolio.", ["namespace", "portfolio", "state"], registry=registry
        )
        self.objective_violated = Gauge(
            "edgefolio_objective_violated",
            "Whether an endpoint misses its objectives.",
            ["namespace", "portfolio", "endpoint"],
            registry=registry,
        )
        self.endpoint_variant = Gauge(
            "edgefolio_endpoint_variant_info",
            "1 for the variant that an endpoint says it serves.",
            ["namespace", "portfolio", "endpoint", "node", "variant", "revision"],
            registry=registry,
        )
        self.condition = Gauge(
            "edgefolio_portfolio_condition",
            "1 for the status that a condition of a portfolio has.",
            ["namespace", "portfolio", "type", "status"],
            registry=registry,
        )
        self.switch_seconds = Histogram(
            "edgefolio_switch_duration_seconds",
            "From the order to an endpoint until its agent reported that it was carried out.",
            registry=registry,
            buckets=(0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300),
        )
        self.mirror_heard = Gauge(
            "edgefolio_mirror_heard_timestamp_seconds",
            "When a collection of the API server was last heard.",
            ["collection"],
            registry=registry,
        )
        for reason in Reason:
            for action in Action:
                self.decisions.labels(action, reason)
