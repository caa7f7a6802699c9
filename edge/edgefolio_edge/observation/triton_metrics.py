"""The server's own p95 from its metrics: a sliding window of some minutes, so it confirms and never decides."""

from __future__ import annotations

import http.client
import math
import re

_LINE = re.compile(r"^nv_inference_request_summary_us\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def server_p95_milliseconds(endpoint: str, *, model: str, version: int, seconds: float = 2.0) -> float | None:
    """p95 of the requests of ``version`` from the metrics at ``endpoint`` (``host:port``); ``None`` if it has none."""
    connection = http.client.HTTPConnection(endpoint, timeout=seconds)
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
    for match in _LINE.finditer(text):
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get("model") == model and labels.get("version") == str(version) and labels.get("quantile") == "0.95":
            microseconds = float(match["value"])
            return microseconds / 1e3 if math.isfinite(microseconds) and microseconds > 0 else None
    return None
