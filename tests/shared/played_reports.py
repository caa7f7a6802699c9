"""What Jobs and agents report where the tests play them: variants, steady traffic, a decision that holds."""

from __future__ import annotations

from typing import Any

from edgefolio.decision.types import Action, Decision, MemoryState, Observation, Reason, ServerState, TrafficWindow
from edgefolio.specification.portfolio_status import VariantStatus


def played_variant(name: str, rank: int, milliseconds: float, **fields: Any) -> VariantStatus:
    """A variant that computes for ``milliseconds``; ``fields`` replace what is said of it."""
    said: dict[str, Any] = {
        "name": name,
        "rank": rank,
        "accuracy_percent": str(80 + rank),
        "mean_milliseconds": str(milliseconds),
        "p95_milliseconds": str(milliseconds * 1.2),
        "load_milliseconds": "100",
        "memory_peak_bytes": rank * 2**24,
        "memory_steady_bytes": rank * 2**23,
    }
    return VariantStatus(**(said | fields))


#: A revision of two variants: what they compute for, in milliseconds, and what is published of them.
COMPUTE = {"small": 2.0, "dense": 10.0}
VARIANTS = tuple(played_variant(name, rank, COMPUTE[name]) for rank, name in enumerate(COMPUTE, start=1))


def steady_observation(
    active: str | None, *, compute_milliseconds: float, memory: MemoryState | None = None
) -> Observation:
    """Four requests a second, without a queue, of which each computes for ``compute_milliseconds``."""
    traffic = TrafficWindow(
        seconds=5,
        requests=20,
        failures=0,
        executions=20,
        mean_compute_milliseconds=compute_milliseconds,
        mean_queue_milliseconds=0.1,
        mean_total_milliseconds=compute_milliseconds + 0.5,
        in_flight=0.04,
        age_seconds=0,
    )
    return Observation(
        active_variant=active,
        resident_variants=() if active is None else (active,),
        server=ServerState.SERVING,
        traffic=traffic,
        memory=memory,
    )


def holding_decision(*, objectives_met: bool | None = True) -> Decision:
    """What serves stays."""
    return Decision(
        action=Action.HOLD, reason=Reason.OBJECTIVES_MET, target=None, message="", objectives_met=objectives_met
    )
