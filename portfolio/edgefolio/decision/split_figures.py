"""Figures of a split, of the set of workers that serves it, and of what answers beside a shard. All frozen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SplitProfile:
    """What a split's profile says besides computing, for one request batch.

    ``exchanges`` is how often the workers wait for each other; input and answer are one more. Bytes are those into the
    busiest worker at all exchanges, and of the input. ``shard_milliseconds`` is each worker's mean computing, by rank,
    on the machine of the profile; empty where only the slowest is known, which is the profile's mean.
    """

    workers: int
    exchanges: int
    bytes_into_busiest: int
    input_bytes: int = 0
    shard_milliseconds: tuple[float, ...] = ()

    def milliseconds_of(self, rank: int) -> float | None:
        """Mean computing of the worker of this rank; ``None`` if it was not measured apart."""
        return self.shard_milliseconds[rank] if 0 <= rank < len(self.shard_milliseconds) else None


@dataclass(frozen=True, kw_only=True)
class WorkerSet:
    """The set of workers that serves a split with this endpoint, or is offered to it, as this endpoint sees it.

    ``is_ready``: while it serves, all ``workers`` are linked; before, all could be at once. ``reason`` says in a few
    words why it is not. ``round_trip_milliseconds`` and ``bytes_per_second`` are those of the slowest link.
    ``compute_factor`` is what the slowest worker's part takes now over the split's mean; ``arrival_rate`` counts the
    requests a second of all entries. ``None`` is unknown, and then the split is not taken.

    ``own_compute_milliseconds`` is what this worker alone computed for a job, the mean of ``own_jobs`` of all entries.
    ``split_answers`` and ``fallback_answers`` count this entry's answers. All are of the latest window.
    ``fallback`` is the variant that is loaded beside the shard; ``None`` while the split is not loaded.
    """

    variant: str
    rank: int
    workers: int
    is_ready: bool
    age_seconds: float
    name: str = ""
    number: int = 0
    reason: str = ""
    round_trip_milliseconds: float | None = None
    bytes_per_second: float | None = None
    compute_factor: float | None = None
    arrival_rate: float | None = None
    own_compute_milliseconds: float | None = None
    own_jobs: int = 0
    split_answers: int = 0
    fallback_answers: int = 0
    fallback: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """What answers beside a shard a job that is not done ``abandon_milliseconds`` after it came.

    ``is_in_time``: such an answer still meets the latency objective. ``p95_milliseconds`` is its own, here and now;
    ``predicted_milliseconds`` the split's. ``None``: none exists, or it is not known.
    """

    variant: str
    abandon_milliseconds: float
    is_in_time: bool
    p95_milliseconds: float | None
    predicted_milliseconds: float | None

    @property
    def clause(self) -> str:
        """It in a clause."""
        late = "" if self.is_in_time else ", which would be late"
        return f"{self.variant} answers what takes {self.abandon_milliseconds:.1f} ms{late}"
