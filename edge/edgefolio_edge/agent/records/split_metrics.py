"""Metrics of one worker of a split, from the status file that it writes once a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgefolio_worker.records.status_file import WorkerStatus


class SplitMetrics(Collector):
    """``edgefolio_split_*``: read anew at each scrape. Nothing is exported while the worker says nothing."""

    def __init__(self, status: Callable[[], WorkerStatus | None], *, model: str) -> None:
        self._status, self._model = status, model

    def registry(self) -> CollectorRegistry:
        """A registry of these alone."""
        found = CollectorRegistry()
        found.register(self)
        return found

    def describe(self) -> list[Metric]:
        """None beforehand: a registry asks, and a scrape finds them."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        status = self._status()
        if status is None:
            return
        model = self._model
        requests = CounterMetricFamily(
            "edgefolio_split_requests", "Requests by who answered, and why.", labels=["model", "answerer", "reason"]
        )
        for (answerer, reason), count in status.answers.items():
            requests.add_metric([model, answerer, reason], count)
        yield requests
        linked = GaugeMetricFamily(
            "edgefolio_split_linked", "1 while requests go to the peers.", labels=["model", "reason"]
        )
        linked.add_metric([model, status.reason or ""], float(status.is_linked))
        yield linked
        for name, text, value in (
            ("jobs", "Own jobs that all workers did.", status.jobs),
            ("exchange_seconds", "Time of own jobs that was not own computing.", status.exchange_seconds),
            ("computed", "Jobs of all entries that were computed here.", status.computed),
            ("compute_seconds", "Own computing of those.", status.compute_seconds),
        ):
            counter = CounterMetricFamily(f"edgefolio_split_{name}", text, labels=["model"])
            counter.add_metric([model], value)
            yield counter
        ended = CounterMetricFamily(
            "edgefolio_split_connections_ended", "Connections that ended, by reason.", labels=["model", "reason"]
        )
        for reason, count in status.ended.items():
            ended.add_metric([model, reason], count)
        yield ended
        received = CounterMetricFamily("edgefolio_split_received_bytes", "From a peer.", labels=["model", "peer"])
        sent = CounterMetricFamily("edgefolio_split_sent_bytes", "To a peer.", labels=["model", "peer"])
        trip = GaugeMetricFamily("edgefolio_split_round_trip_seconds", "Of a ping.", labels=["model", "peer"])
        for peer in status.peers:
            labels = [model, str(peer.rank)]
            received.add_metric(labels, peer.bytes_in)
            sent.add_metric(labels, peer.bytes_out)
            if peer.round_trip_milliseconds is not None:
                trip.add_metric(labels, peer.round_trip_milliseconds / 1e3)
        yield from (received, sent, trip)
