"""Recorder of reconciliations as Prometheus metrics; removes the series of deleted objects."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import Gauge

from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.endpoints.memory_reservations import EndpointKey, Promise
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.ownership import PortfolioKey
from edgefolio_operator.reconcilers.plan import ReconcilePlan

logger = logging.getLogger(__name__)

_Series = tuple[str, tuple[str, ...]]


class MetricsRecorder:
    """Sets the gauges of each portfolio, and removes the series of deleted ones."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {
            "endpoints": metrics.endpoints,
            "violated": metrics.objective_violated,
            "variant": metrics.endpoint_variant,
            "condition": metrics.condition,
        }
        self._series: dict[PortfolioKey, set[_Series]] = {}
        self._said: dict[PortfolioKey, dict[str, tuple[str, str]]] = {}
        self._heard: set[str] = set()

    def record(
        self,
        key: PortfolioKey,
        snapshot: PortfolioSnapshot,
        plan: ReconcilePlan,
        *,
        before: Mapping[EndpointKey, Sequence[Promise]],
    ) -> None:
        """Record one reconciliation; ``before`` are the promises before it."""
        found: dict[_Series, float] = {}
        counts = plan.status.endpoints
        for state, value in (
            ("total", counts.total if counts else 0),
            ("available", counts.available if counts else 0),
            ("meeting_objectives", counts.meeting_objectives if counts else 0),
        ):
            found["endpoints", (*key, state)] = value
        for condition in plan.status.conditions:
            found["condition", (*key, condition.type, condition.status)] = 1
        for endpoint in snapshot.endpoints:
            found.update(_variant_series(key, endpoint))
        for name, decision in plan.decisions.items():
            found["violated", (*key, name)] = decision.objectives_met is False
        self._set(key, found)
        self._count_decisions(key, plan)
        for promise in plan.promises:
            under_way = replace(promise, done_at=None) in before.get(promise.endpoint, ())
            if promise.done_at is not None and under_way:
                self._metrics.switch_seconds.observe(max(0.0, promise.done_at - promise.since))

    def record_silences(self, silences: Mapping[str, float]) -> None:
        """Record the last event of each collection, ``silences`` seconds ago."""
        now = time.time()
        for gone in self._heard - silences.keys():
            self._metrics.mirror_heard.remove(gone)
        for title, silence in silences.items():
            self._metrics.mirror_heard.labels(title).set(now - silence)
        self._heard = set(silences)

    def forget(self, key: PortfolioKey) -> None:
        """Remove the series of a deleted portfolio."""
        self._set(key, {})
        self._series.pop(key, None)
        self._said.pop(key, None)

    def _set(self, key: PortfolioKey, found: Mapping[_Series, float]) -> None:
        for name, labels in self._series.get(key, set()) - found.keys():
            self._gauges[name].remove(*labels)
        for (name, labels), value in found.items():
            self._gauges[name].labels(*labels).set(value)
        self._series[key] = set(found)

    def _count_decisions(self, key: PortfolioKey, plan: ReconcilePlan) -> None:
        before = self._said.get(key, {})
        said = {name: (decision.action.value, decision.reason.value) for name, decision in plan.decisions.items()}
        for name, (action, reason) in said.items():
            if before.get(name) != (action, reason):
                self._metrics.decisions.labels(action, reason).inc()
                message = plan.decisions[name].message
                logger.info("%s/%s: %s %s: %s", key[0], name, action, reason, message)
        self._said[key] = said


def _variant_series(key: PortfolioKey, endpoint: Mapping[str, Any]) -> dict[_Series, float]:
    status, spec = endpoint.get("status") or {}, endpoint.get("spec") or {}
    variant, revision = status.get("activeVariant"), status.get("activeRevision")
    if variant is None:
        return {}
    node, name = str(spec.get("nodeName", "")), str(endpoint["metadata"]["name"])
    return {("variant", (*key, name, node, str(variant), str(revision or ""))): 1}
