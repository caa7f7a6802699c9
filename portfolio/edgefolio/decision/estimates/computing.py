"""Estimator of computing from readings: how much single requests scatter, and whether the node has become faster.

**Scatter.** Where others take the processor, some requests are interrupted and others are not: their times scatter far
more than on the idle node of a profile, which shows in the means of successive readings. With ``d`` the difference of
their logarithms and ``n1``, ``n2`` requests in them, ``d^2 / (1/n1 + 1/n2)`` estimates the squared coefficient of
variation of one request (J. von Neumann, "Distribution of the ratio of the mean square successive difference to the
variance", Annals of Mathematical Statistics 12(4), 1941): a level that drifts changes it little. A few readings say
little, so the profile's own scatter counts as some of them.

**Recovery.** The smoothed compute factor follows a neighbour that goes with a delay of seconds. The sequential test of
:mod:`edgefolio.decision.evidence`, on the logarithm of the factor, says when readings are surely below it: it is then
theirs at once, and what the slow time showed of scatter is forgotten. A node that becomes slower is no matter of this
test: predictions on the way down take the largest of what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from edgefolio.decision.estimates.compute_factor import FACTOR_BOUNDS, bounded
from edgefolio.decision.estimates.prediction import LARGEST_SENSIBLE, service_variability
from edgefolio.decision.types import Computing, Reading, State, VariantProfile

#: Readings that the profile's scatter counts for.
_PROFILE_COUNTS = 4.0
#: Readings after which an older one counts half.
_HALF_LIFE_READINGS = 20.0
#: A log-normal time with more has a 95th percentile that no longer grows with it.
MOST_VARIABILITY = 1.0
_LARGEST_DIFFERENCE = math.log(4.0)
#: As in the test of a violation: neighbours in time are slow together.
_COUNTED_REQUESTS = 5.0
_LEAST_VARIANCE = 0.02
_LEAST_READINGS = 2
#: Faster by at least half of this ratio (in logarithms): less is left to the smoothing.
_OTHER_TIMES = math.log(1.25)


def variability_of(state: State, profile: VariantProfile) -> float:
    """Squared coefficient of variation of computing here and now, as far as readings tell; 0 if they do not."""
    found = state.computing
    if found.pairs <= 0:
        return 0.0
    whole = found.pairs * found.variability + _PROFILE_COUNTS * service_variability(profile)
    return min(MOST_VARIABILITY, whole / (found.pairs + _PROFILE_COUNTS))


def with_computing(
    state: State, readings: Iterable[Reading], *, profile: VariantProfile, sure: float
) -> tuple[State, bool]:
    """``state`` after ``readings`` of the active variant, and whether it has surely become faster: then at once.

    ``sure`` is the likelihood ratio (its logarithm) that is asked for.
    """
    recovered = False
    for reading in readings:
        compute = reading.mean_compute_milliseconds
        if 0 < reading.requests <= LARGEST_SENSIBLE and 0 < compute <= LARGEST_SENSIBLE:
            level = math.log(bounded(compute / profile.mean_milliseconds, FACTOR_BOUNDS))
            state, now = _with_level(state, level, requests=float(reading.requests), profile=profile, sure=sure)
            recovered = recovered or now
    return state, recovered


def _with_level(
    state: State, level: float, *, requests: float, profile: VariantProfile, sure: float
) -> tuple[State, bool]:
    before, factor = state.computing, math.log(state.compute_factor)
    counted = min(requests, _COUNTED_REQUESTS)
    variance = _LEAST_VARIANCE + max(variability_of(state, profile), service_variability(profile)) / counted
    weight = before.weight + 1 / variance
    found = max(-_LARGEST_DIFFERENCE, min(_LARGEST_DIFFERENCE, level - factor))
    weighted = before.weighted_change + found / variance
    after = replace(_with_pair(before, level, counted), last=level, last_requests=counted)
    # Counted from where the level was last nearer to what it was than to other times, as in a CUSUM chart.
    if weighted + weight * _OTHER_TIMES / 2 >= 0:
        return replace(state, computing=replace(after, weighted_change=0.0, weight=0.0, readings=0)), False
    seen = before.readings + (found <= -_OTHER_TIMES)
    if seen < _LEAST_READINGS or weighted * weighted / weight / 2 < sure:
        return replace(state, computing=replace(after, weighted_change=weighted, weight=weight, readings=seen)), False
    change = weighted / weight
    # What was learned of scatter is of the slow time.
    begun = Computing(last=level, last_requests=counted)
    return replace(state, compute_factor=bounded(math.exp(factor + change), FACTOR_BOUNDS), computing=begun), True


def _with_pair(before: Computing, level: float, requests: float) -> Computing:
    if before.last is None or before.last_requests <= 0:
        return before
    difference = min(_LARGEST_DIFFERENCE, abs(level - before.last))
    found = difference * difference / (1 / before.last_requests + 1 / requests)
    pairs = before.pairs * 2.0 ** (-1 / _HALF_LIFE_READINGS) + 1
    return replace(before, pairs=pairs, variability=before.variability + (found - before.variability) / pairs)
