"""Sequential test of a latency violation: how sure it is that p95 is above the objective, reading by reading.

A reading is what the counters gained in a quarter of a second. Its level is ``y = ln(p95 / objective)``, with the wait
at its mean, taken as normal around the true level with the variance ``v = 0.02 + s2 / n``: ``n`` requests (at most five
count, since neighbours in time are slow together), ``s2`` their scatter as this endpoint showed it. From the last
reading on at which ``sum y/v`` was 0, with ``W = sum 1/v`` and the estimated level ``m = sum y/v / W``, two likelihood
ratios are formed (their logarithms):

    above the objective, against at it:    g = W * m^2 / 2
    above the objective, against calm:     c = W * (m - calm level)^2 / 2

A violation is sure if ``g >= 12.8``, or if ``c >= 12.8`` and ``g >= 3``. 12.8 is the logarithm of the readings that a
day has. **Error rate** with independent readings: scatter around a level at or below the objective is taken for a
violation less than once a day, and a change of level that leaves p95 inside the objective for one that does
not in less than 1 % of such changes (2.4 standard errors). What comes together and ends by itself, as bursts do, counts
as scatter, so that an endpoint that has them becomes more patient.

**Contention** (throttling, pressure, steal time) comes before latency does. Alone it is no reason; while one of its
signs is fresh, a rise of the level is taken to be twenty times as likely to last, and 9.8 takes the place of 12.8.

A queue that builds up by chance lasts for several readings. Where the queue alone lifts p95 above the objective, and
computing is as fast as that allows, four readings are taken for one.

No level counts as more than four times the objective, so that one reading never decides. Requests that wait
count before they are answered: by the time for which nothing was answered, and by those queued before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgefolio.decision.estimates.compute_factor import Measurement, measure, towards, weight_of
from edgefolio.decision.estimates.prediction import LARGEST_SENSIBLE, p95_by_mean
from edgefolio.decision.types import Contention, LatencyTest, Reading, TrafficWindow, VariantProfile

#: Time between two readings of an endpoint that has traffic.
READING_SECONDS = 0.25
#: Likelihood ratio at which a violation is sure: e to this, the readings of a day.
SURE = math.log(86_400 / READING_SECONDS)
#: ... where the level changed beyond doubt, and is above the objective by 2.4 standard errors.
_LIKELY = 3.0
#: How much likelier a rise is to last under contention, and from which share of the time on that is assumed.
_CONTENDED_ODDS = 20.0
_CONTENDED_PERCENT = {"throttled": 5.0, "pressure": 25.0, "stolen": 5.0}
#: An older sign of contention says nothing of now.
_FRESH_SECONDS = 3.0
_LARGEST_LEVEL = math.log(4.0)
_COUNTED_REQUESTS = 5.0
_LEAST_VARIANCE = 0.02
#: Readings of one queue, of which as many are taken for one: an idle server's queue lasts some services.
_QUEUED_TOGETHER = 4.0
_LEAST_READINGS = 2
_LARGEST_PENDING = 1_000_000
#: Half-lives of what is learned in calm: the level that readings scatter around, and their scatter.
_LEVEL_HALF_LIFE_SECONDS = 10.0
_SCATTER_HALF_LIFE_SECONDS = 60.0
_SCATTER_BOUNDS = (0.01, 4.0)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The test's result: how far p95 is above the objective (``ratio``, 1 if it is not), and whether that is sure."""

    ratio: float
    is_sure: bool


def threshold(contention: Contention | None) -> float:
    """The likelihood ratio (its logarithm) at which a violation is sure under ``contention``."""
    return SURE - math.log(_CONTENDED_ODDS) if is_contended(contention) else SURE


def is_contended(contention: Contention | None) -> bool:
    """Whether a fresh sign says that others want the server's processors now."""
    signs = {} if contention is None else {name: getattr(contention, name) for name in _CONTENDED_PERCENT}
    return any(
        sign is not None and sign.percent >= _CONTENDED_PERCENT[name] and 0 <= sign.age_seconds <= _FRESH_SECONDS
        for name, sign in signs.items()
    )


def verdict_of(test: LatencyTest, *, budget: float | None, min_requests: float, sure: float) -> Verdict:
    """What ``test`` has found of an objective of ``budget`` milliseconds; ``sure`` is the likelihood ratio asked for.

    A violation must show in ``min_requests``, or in half of them if it is twice as severe. Where a changed objective
    was held against what was known already, it is asked but once: what is likely is sure.
    """
    if budget is None or budget <= 0 or test.weight <= 0 or test.weighted_level <= 0:
        return Verdict(ratio=1.0, is_sure=False)
    level = test.weighted_level / test.weight
    ratio = math.exp(min(_LARGEST_LEVEL, level))
    above = test.weight * level * level / 2
    calm = 0.0 if test.calm_level is None else min(0.0, test.calm_level - math.log(budget))
    changed = test.weight * (level - calm) * (level - calm) / 2
    shown = test.readings >= _LEAST_READINGS and test.requests * ratio >= min_requests
    likely = above >= min(sure, _LIKELY)
    return Verdict(ratio=ratio, is_sure=shown and likely and (changed >= sure or test.is_judged_anew))


def with_readings(
    test: LatencyTest,
    readings: Iterable[Reading],
    *,
    profile: VariantProfile,
    budget: float | None,
    variability: float = 0.0,
) -> LatencyTest:
    """``test`` after ``readings`` of the active variant; without a ``budget`` (milliseconds) nothing is tested.

    ``variability`` is how much computing scatters now, as a squared coefficient of variation: at least as profiled.
    """
    if budget is None or budget <= 0:
        return forgotten(test)
    for reading in readings:
        test = _with_reading(test, reading, profile=profile, budget=budget, variability=variability)
    return test


def with_window(test: LatencyTest, measurement: Measurement, *, budget: float | None, elapsed: float) -> LatencyTest:
    """``test`` after a whole window in place of readings: what arrived since the last one is a reading at its level."""
    p95 = measurement.p95_milliseconds
    if p95 is None:
        return test
    if budget is None or budget <= 0 or p95 <= budget:
        return forgotten(test)
    requests = min(float(measurement.requests), measurement.arrival_rate * elapsed)
    return _added(test, level=math.log(p95 / budget), requests=requests) if requests > 0 else test


def forgotten(test: LatencyTest) -> LatencyTest:
    """``test`` without its evidence; what was learned of the scatter stays."""
    return replace(
        test,
        weighted_level=0.0,
        weight=0.0,
        readings=0,
        requests=0.0,
        squares=0.0,
        silent_seconds=0.0,
        pending=0,
        is_judged_anew=False,
    )


def variance_of(test: LatencyTest, *, requests: float) -> float:
    """Variance of the level of a reading with ``requests``."""
    return _LEAST_VARIANCE + test.scatter / min(max(requests, 1e-3), _COUNTED_REQUESTS)


def measurement_of(reading: Reading, profile: VariantProfile) -> Measurement | None:
    """One reading in the form of a window; ``None`` if nothing was answered in it, or its numbers make no sense."""
    means = (reading.mean_compute_milliseconds, reading.mean_queue_milliseconds, reading.mean_total_milliseconds)
    if reading.requests <= 0 or not all(0 <= value <= LARGEST_SENSIBLE for value in (reading.requests, *means)):
        return None
    return measure(
        TrafficWindow(
            seconds=reading.seconds,
            requests=reading.requests,
            failures=0,
            executions=reading.requests,
            mean_compute_milliseconds=reading.mean_compute_milliseconds,
            mean_queue_milliseconds=reading.mean_queue_milliseconds,
            mean_total_milliseconds=reading.mean_total_milliseconds,
            in_flight=reading.requests * reading.mean_total_milliseconds / 1000 / max(reading.seconds, 1e-9),
            age_seconds=0.0,
        ),
        profile,
    )


def level_of(reading: Reading, profile: VariantProfile, *, variability: float = 0.0) -> float | None:
    """What is compared with the objective, in milliseconds: computing at its 95th percentile, the wait at its mean.

    A few requests say nothing of the tail of the wait; a violation that the tail alone makes shows in the window. The
    last one in the queue waits for all before it.
    """
    found = measurement_of(reading, profile)
    if found is None:
        return None
    compute, transport = found.mean_compute_milliseconds, found.transport_milliseconds or 0.0
    slow = compute * p95_by_mean(profile, variability=variability)
    waiting = min(max(0, reading.pending or 0), _LARGEST_PENDING)
    return transport + max(found.mean_queue_milliseconds, waiting * compute) + slow


def _with_reading(
    test: LatencyTest, reading: Reading, *, profile: VariantProfile, budget: float, variability: float
) -> LatencyTest:
    if not 0 < reading.seconds <= LARGEST_SENSIBLE:
        return test
    p95 = level_of(reading, profile, variability=variability)
    pending = min(max(0, reading.pending or 0), _LARGEST_PENDING)
    if p95 is None:
        # Whoever waited at the start of a reading in which nothing was answered has waited for all of it.
        silent = test.silent_seconds + max(0.0, reading.seconds) if test.pending and pending else 0.0
        test = replace(test, silent_seconds=silent, pending=pending)
        waited = 1000 * silent
        return _added(test, level=math.log(waited / budget), requests=pending) if waited > budget else test
    test = _learned(test, math.log(p95), is_calm=p95 <= budget, requests=reading.requests, seconds=reading.seconds)
    unqueued = replace(reading, mean_queue_milliseconds=0.0, pending=0)
    computed = level_of(unqueued, profile, variability=variability)
    queues = p95 > budget and (computed is None or computed <= budget)
    together = _QUEUED_TOGETHER if queues else 1.0
    test = _added(test, level=math.log(p95 / budget), requests=reading.requests, together=together)
    return replace(test, silent_seconds=0.0, pending=pending)


def _added(test: LatencyTest, *, level: float, requests: float, together: float = 1.0) -> LatencyTest:
    level = min(_LARGEST_LEVEL, max(-_LARGEST_LEVEL, level))
    weight = 1 / variance_of(test, requests=requests) / together
    weighted = test.weighted_level + level * weight
    if weighted <= 0:
        return _ended(test)
    return replace(
        test,
        weighted_level=weighted,
        weight=test.weight + weight,
        readings=test.readings + 1,
        requests=test.requests + requests,
        is_judged_anew=False,
    )


def _ended(test: LatencyTest) -> LatencyTest:
    """``test`` once the level is inside the objective again: what was above it was scatter."""
    scatter = test.scatter
    if test.readings:
        scatter = _scatter(test, test.squares / test.readings, seconds=test.readings * READING_SECONDS)
    return replace(forgotten(test), scatter=scatter, silent_seconds=test.silent_seconds, pending=test.pending)


def _learned(test: LatencyTest, logarithm: float, *, is_calm: bool, requests: int, seconds: float) -> LatencyTest:
    """``test`` with calm level and scatter updated by a calm reading; another one is kept for :func:`_ended`."""
    if test.calm_level is None:
        return replace(test, calm_level=logarithm) if is_calm else test
    deviation = min(_LARGEST_LEVEL, abs(logarithm - test.calm_level))
    square = min(float(requests), _COUNTED_REQUESTS) * deviation * deviation
    if not is_calm or test.readings:
        return replace(test, squares=test.squares + square)
    level = towards(test.calm_level, logarithm, weight_of(seconds, _LEVEL_HALF_LIFE_SECONDS))
    return replace(test, calm_level=level, scatter=_scatter(test, square, seconds=seconds))


def _scatter(test: LatencyTest, square: float, *, seconds: float) -> float:
    low, high = _SCATTER_BOUNDS
    return min(high, max(low, towards(test.scatter, square, weight_of(seconds, _SCATTER_HALF_LIFE_SECONDS))))
