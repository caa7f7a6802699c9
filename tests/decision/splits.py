"""Short ways to a split of the simulator's largest variant, and to the set of workers that serves it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulator import MEBIBYTE, PROFILES

from edgefolio.decision.types import SplitProfile, VariantProfile, WorkerSet

#: The largest variant over two nodes: half of its computing each, 66 KB of maps and input for a request.
SPLIT = VariantProfile(
    name="split",
    rank=5,
    accuracy_percent=91.6,
    mean_milliseconds=5.0,
    p95_milliseconds=6.0,
    load_milliseconds=200,
    memory_peak_bytes=32 * MEBIBYTE,
    memory_steady_bytes=30 * MEBIBYTE,
    split=SplitProfile(
        workers=2, exchanges=2, bytes_into_busiest=18_000, input_bytes=48_000, shard_milliseconds=(5.0, 4.0)
    ),
)
WITH_SPLIT = (*PROFILES, SPLIT)
#: What a request spends on the link of :func:`workers`: three round trips of 0.2 ms, and 66 KB at 1 Gbit/s.
NETWORK_MILLISECONDS = 3 * 0.2 + 66_000 * 8 / 1e6


def workers(**fields: Any) -> WorkerSet:
    """A set that is ready: 1 Gbit/s, 0.2 ms, computing as profiled, 20 requests a second; ``fields`` differ."""
    found = WorkerSet(
        variant="split",
        rank=0,
        workers=2,
        is_ready=True,
        age_seconds=0.5,
        round_trip_milliseconds=0.2,
        bytes_per_second=125e6,
        compute_factor=1.0,
        arrival_rate=20.0,
    )
    return replace(found, **fields)


def serving(**fields: Any) -> WorkerSet:
    """The set of a split that serves, all of whose hundred requests its workers answered."""
    figures: dict[str, Any] = {
        "own_compute_milliseconds": 5.0,
        "own_jobs": 100,
        "split_answers": 100,
        "fallback": "tiny",
        "arrival_rate": 10.0,
    }
    return workers(**figures | fields)
