"""Triton's own metrics: p95 over a window of some minutes, so it confirms and never decides; requests that wait."""

from __future__ import annotations

import contextlib
import http.client
import math

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 2.0
_P95_METRIC = "nv_inference_request_summary_us"
_PENDING_METRIC = "nv_inference_pending_request_count"


class TritonMetrics:
    """Reader of the metrics at ``endpoint`` (``host:port``), over one connection that is kept."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._connection: http.client.HTTPConnection | None = None

    def text(self) -> str:
        """All metrics; empty if the server does not give them."""
        # The server closes a connection that has been idle for long: then a new one is made.
        for _ in range(2):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._endpoint, timeout=_SECONDS)
            try:
                self._connection.request("GET", "/metrics")
                response = self._connection.getresponse()
                text = response.read().decode(errors="replace")
            except (OSError, http.client.HTTPException):
                self.close()
                continue
            return text if response.status == 200 else ""
        return ""

    def close(self) -> None:
        """Close the connection; the next reading makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def p95_in(text: str, *, model: str, version: int) -> float | None:
    """p95 in milliseconds of the requests of ``version``. A summary without recent requests is NaN: ``None`` here."""
    value = _value(text, _P95_METRIC, {"model": model, "version": str(version), "quantile": "0.95"})
    return None if value is None or value <= 0 else value / 1e3


def pending_in(text: str, *, model: str, version: int) -> int | None:
    """The number of requests to ``version`` that wait to be computed; ``None`` if the server does not say."""
    value = _value(text, _PENDING_METRIC, {"model": model, "version": str(version)})
    return None if value is None or value < 0 else int(value)


def _value(text: str, metric: str, labels: dict[str, str]) -> float | None:
    # All of a server's metrics take the parser 20 times as long as these lines.
    lines = "\n".join(line for line in text.splitlines() if line.startswith(metric))
    try:
        samples = [sample for family in text_string_to_metric_families(lines) for sample in family.samples]
    except ValueError:
        return None
    for sample in samples:
        if sample.labels.items() >= labels.items():
            return sample.value if math.isfinite(sample.value) else None
    return None
