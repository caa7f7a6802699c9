"""What a model costs in one environment: latency, load time, memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgefolio.records.base import Record
from edgefolio.untrusted.json_document import BatchSize, Count, Line, Magnitude, Milliseconds, Positive


class LatencyProfile(Record):
    """Latency of one batch in milliseconds; p99 only from at least 1,000 samples."""

    batch_size: BatchSize
    mean_milliseconds: Milliseconds
    p50_milliseconds: Milliseconds
    p95_milliseconds: Milliseconds
    p99_milliseconds: Milliseconds | None = None
    samples: Positive


class Environment(Record):
    """Where a profile was taken; profiles of different environments are not compared."""

    cpu_model: Line
    instruction_sets: Annotated[tuple[Line, ...], Field(max_length=256)] = ()
    logical_cpus: Count
    cpu_quota: Magnitude | None = None
    threads: Positive
    onnxruntime_version: Line
    platform: Line


class Profile(Record):
    """What a variant costs in one environment. Memory in bytes above the empty runtime."""

    environment: Environment
    latencies: Annotated[tuple[LatencyProfile, ...], Field(min_length=1, max_length=8)]
    load_milliseconds: Milliseconds
    memory_peak_bytes: Count
    memory_steady_bytes: Count

    def latency(self, batch_size: int) -> LatencyProfile | None:
        """The profile at this batch size, if it was measured."""
        return next((entry for entry in self.latencies if entry.batch_size == batch_size), None)
