"""Formatting of figures and times for a terminal."""

from __future__ import annotations

from decimal import Decimal

from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.objectives import ObjectivesSpecification


def span(seconds: float) -> str:
    """A duration, as kubectl writes ages: 45 s, 12 min, 3 h, 2 d."""
    seconds = max(0.0, seconds)
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def age(time: str | None, *, now: float) -> str:
    """The age of a Kubernetes timestamp: "45 s ago"."""
    return "at an unknown time" if time is None else f"{span(now - time_seconds(time))} ago"


def milliseconds(value: float) -> str:
    """12.5 ms."""
    return f"{value:.1f} ms"


def mebibytes(value: int | None) -> str:
    """Bytes for people: 16 MiB."""
    return "unknown" if value is None else f"{value / 2**20:.0f} MiB"


def percent(value: str) -> str:
    """A status's accuracy, with two decimals."""
    return f"{Decimal(value):.2f} %"


def asked(objectives: ObjectivesSpecification) -> str:
    """The objectives of an endpoint, in one clause."""
    parts = []
    if objectives.latency_p95_milliseconds is not None:
        network = objectives.network_latency_milliseconds
        less = f" less {network} ms for the network" if network else ""
        parts.append(f"p95 at most {objectives.latency_p95_milliseconds} ms{less}")
    if objectives.min_accuracy_percent is not None:
        parts.append(f"accuracy at least {objectives.min_accuracy_percent} %")
    if objectives.max_memory is not None:
        parts.append(f"memory at most {objectives.max_memory}")
    return ", ".join(parts) or "nothing, so the most accurate variant that keeps up"
