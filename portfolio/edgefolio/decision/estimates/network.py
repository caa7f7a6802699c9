"""Prediction of a split: what travels between its workers, and how fast the slowest of them computes.

    s = f * profile mean + (exchanges + 1) * round trip + (bytes into the busiest worker + input bytes) / bandwidth

``f`` is the slowest worker's compute factor: as the set says, and no less than this endpoint's own. Each exchange waits
for one round trip, and input and answer are one more; both figures of the link are measured. A figure that is missing
leaves the prediction out.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgefolio.decision.estimates.compute_factor import FACTOR_BOUNDS, Measurement, bounded
from edgefolio.decision.estimates.prediction import LARGEST_SENSIBLE, Conditions
from edgefolio.decision.types import SplitProfile, VariantProfile, WorkerSet

_LEAST_FACTOR, _MOST_FACTOR = FACTOR_BOUNDS


def missing_figure(split: SplitProfile, workers: WorkerSet) -> str | None:
    """The first figure without which the split is not predicted, in words; ``None`` if all are there."""
    trip, rate = workers.round_trip_milliseconds, workers.bytes_per_second
    if trip is None or not 0 <= trip <= LARGEST_SENSIBLE:
        return "the round trip between its workers"
    if _bytes(split) and (rate is None or not 0 < rate < math.inf):
        return "the bandwidth between its workers"
    if workers.compute_factor is None or not _LEAST_FACTOR <= workers.compute_factor <= _MOST_FACTOR:
        return "the compute factor of its slowest worker"
    if workers.arrival_rate is None or not 0 <= workers.arrival_rate <= LARGEST_SENSIBLE:
        return "the arrival rate of all its entries"
    return None


def network_milliseconds(split: SplitProfile, workers: WorkerSet) -> float:
    """What one request spends between the workers; infinite where that is not known."""
    if missing_figure(split, workers) is not None:
        return math.inf
    sent, rate = _bytes(split), workers.bytes_per_second
    transfer = 1e3 * sent / rate if sent and rate else 0.0
    return (split.exchanges + 1) * (workers.round_trip_milliseconds or 0.0) + transfer


def split_conditions(conditions: Conditions, profile: VariantProfile, workers: WorkerSet | None) -> Conditions:
    """``conditions`` of this endpoint as those of the split ``profile`` with its set of workers."""
    if profile.split is None:
        return conditions
    if workers is None or workers.variant != profile.name or missing_figure(profile.split, workers) is not None:
        return replace(conditions, network_milliseconds=math.inf)
    return replace(
        conditions,
        compute_factor=max(conditions.compute_factor, workers.compute_factor or 0.0),
        network_milliseconds=network_milliseconds(profile.split, workers),
        rate_of_all_entries=max(workers.arrival_rate or 0.0, conditions.arrival_rate or 0.0),
        # A split answers one request at a time.
        merged_requests=1.0,
    )


def own_factor_of(profile: VariantProfile, workers: WorkerSet | None) -> float | None:
    """This node's compute factor while the split serves, from what its worker alone computed; ``None`` is unknown.

    Triton's counters hold the wait for the peers as well, and one factor stands for all variants.
    """
    if profile.split is None or workers is None or workers.variant != profile.name or workers.own_jobs <= 0:
        return None
    found = workers.own_compute_milliseconds
    if found is None or not 0 < found <= LARGEST_SENSIBLE:
        return None
    return bounded(found / (profile.split.milliseconds_of(workers.rank) or profile.mean_milliseconds), FACTOR_BOUNDS)


def with_own_compute(measurement: Measurement, profile: VariantProfile, workers: WorkerSet | None) -> Measurement:
    """``measurement`` of a split with the factor of :func:`own_factor_of`; that of another variant as it is."""
    if profile.split is None:
        return measurement
    return replace(measurement, factor=own_factor_of(profile, workers))


def slowest_factor(profile: VariantProfile, computing: dict[int, float]) -> float | None:
    """The compute factor of a set whose workers take ``computing`` milliseconds for their parts, by rank.

    ``None`` unless all of them are known: what one that says nothing takes may be the longest.
    """
    split = profile.split
    if split is None or set(computing) != set(range(split.workers)):
        return None
    slowest = max(computing.values())
    return bounded(slowest / profile.mean_milliseconds, FACTOR_BOUNDS) if 0 < slowest <= LARGEST_SENSIBLE else None


def _bytes(split: SplitProfile) -> int:
    return split.bytes_into_busiest + split.input_bytes
