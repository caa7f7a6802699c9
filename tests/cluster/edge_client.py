"""A client pod on an edge node, and what it recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_site import EdgeSite


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request of a client pod; ``due`` in seconds since the epoch."""

    due: float
    milliseconds: float
    version: int | None
    error: str | None
    answer: float | None = None
    """Weighted sum of the answer: the same input is sent each time."""


@dataclass(frozen=True)
class Client:
    """A client pod and what it recorded."""

    site: EdgeSite
    name: str

    def requests(self, *, since: float = 0.0) -> list[Request]:
        """Requests so far, of those that were due after ``since``."""
        try:
            text = self.site.kubernetes.kubectl("logs", self.name)
        except AssertionError:
            return []
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [Request(**line) for line in lines if line["due"] >= since]

    def failures(self, *, since: float = 0.0) -> list[Request]:
        """The requests that failed."""
        return [request for request in self.requests(since=since) if request.error is not None]

    def p95(self, *, since: float) -> float:
        """95 % of the requests since then took at most this many milliseconds."""
        times = sorted(request.milliseconds for request in self.requests(since=since))
        return times[int(0.95 * (len(times) - 1))] if times else float("nan")

    def stop(self) -> list[Request]:
        """End the client; all it recorded."""
        found = self.requests()
        self.site.delete_pod(self.name)
        return found
