"""Short ways to observations of the simulator's four variants (tiny 2 ms, small 4 ms, mid 6 ms, large 10 ms)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulator import MEBIBYTE, PROFILES, SWITCHING

from edgefolio.decision import decide
from edgefolio.decision.types import (
    Decision,
    MemoryState,
    Objectives,
    Observation,
    Quarantine,
    ServerState,
    State,
    TrafficWindow,
    VariantProfile,
)
from edgefolio.specification import Switching

NOW = 1_000_000.0


def by_name(name: str) -> VariantProfile:
    return next(profile for profile in PROFILES if profile.name == name)


def traffic(variant: str = "large", *, factor: float = 1.0, rate: float = 20.0, **fields: Any) -> TrafficWindow:
    """Five seconds of ``rate`` requests/s without a queue; ``fields`` replace what differs."""
    compute = by_name(variant).mean_milliseconds * factor
    count = round(rate * 5)
    window = TrafficWindow(
        seconds=5,
        requests=count,
        failures=0,
        executions=count,
        mean_compute_milliseconds=compute if count else 0.0,
        mean_queue_milliseconds=0.0,
        mean_total_milliseconds=compute + 0.5 if count else 0.0,
        in_flight=rate * (compute + 0.5) / 1000,
        age_seconds=0.5,
    )
    return replace(window, **fields)


def observation(active: str | None = "large", **fields: Any) -> Observation:
    defaults: dict[str, Any] = {
        "active_variant": active,
        "resident_variants": (active,) if active else (),
        "server": ServerState.SERVING,
        "traffic": traffic(active) if active else None,
    }
    return Observation(**{**defaults, **fields})


def memory(
    *, limit: float | None = None, used: float | None = None, node: float | None = None, age: float = 0.0
) -> MemoryState:
    """Memory in MiB."""

    def amount(value: float | None) -> int | None:
        return None if value is None else round(value * MEBIBYTE)

    return MemoryState(
        limit_bytes=amount(limit), working_set_bytes=amount(used), node_available_bytes=amount(node), age_seconds=age
    )


def quarantined(*names: str, until: float = NOW + 50, failures: int = 1) -> State:
    return State(
        quarantined=tuple(Quarantine(variant=name, until=until, failures=failures, cause="test") for name in names)
    )


def decided(
    seen: Observation,
    *,
    objectives: Objectives | None = None,
    switching: Switching = SWITCHING,
    state: State | None = None,
    profiles: tuple[VariantProfile, ...] = PROFILES,
    now: float = NOW,
) -> tuple[Decision, State]:
    return decide(
        observation=seen,
        objectives=objectives or Objectives(latency_p95_milliseconds=30.0),
        profiles=profiles,
        switching=switching,
        state=state or State(),
        now=now,
        with_standby=True,
    )


def repeated(
    seen: Observation, *, seconds: float, state: State | None = None, now: float = NOW, **arguments: Any
) -> tuple[Decision, State]:
    """The decision after the same was seen every second for ``seconds``, or the first switch on the way."""
    elapsed = 0.0
    decision, state = decided(seen, state=state, now=now, **arguments)
    while elapsed < seconds and decision.action.value == "Hold":
        elapsed += 1
        decision, state = decided(seen, state=state, now=now + elapsed, **arguments)
    return decision, state
