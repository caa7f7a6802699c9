"""p95 from Triton's own metrics: over a window of some minutes, so it confirms and never decides."""

from __future__ import annotations

import http.client
import math

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 2.0
_METRIC = "nv_inference_request_summary_us"


def server_p95_milliseconds(endpoint: str, *, model: str, version: int) -> float | None:
    """p95 of the requests of ``version`` from the metrics at ``endpoint`` (``host:port``); ``None`` if it has none."""
    connection = http.client.HTTPConnection(endpoint, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        if response.status != 200:
            return None
        text = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return p95_in(text, model=model, version=version)


def p95_in(text: str, *, model: str, version: int) -> float | None:
    """The same from the metrics' ``text``. A summary without recent requests is NaN, which is ``None`` here."""
    # All of a server's metrics take the parser 20 times as long as these lines.
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_METRIC))
    wanted = {"model": model, "version": str(version), "quantile": "0.95"}
    try:
        samples = [sample for family in text_string_to_metric_families(lines) for sample in family.samples]
    except ValueError:
        return None
    for sample in samples:
        if sample.labels.items() >= wanted.items():
            return sample.value / 1e3 if math.isfinite(sample.value) and sample.value > 0 else None
    return None
