"""A changed latency objective: what is known of the variant that serves is judged by it, at once and once.

The windows since the last switch tell the level of p95, the tail of the wait included. Under another objective their
mean is compared with it as the readings of a violation are (:mod:`edgefolio.decision.evidence`), with the readings that
the time held. That test asks again with every reading, and so must be sure as of a day's readings; a changed objective
asks once, so 2.4 standard errors suffice: of such changes that p95 just meets, less than 1 % are taken for a violation.

Waits of requests that come soon after each other are of one queue. Its relaxation time, ``s / (1 - sqrt(rho))^2``
for M/M/1 (J. W. Cohen, *The Single Server Queue*, 1982, II.2.3), is about how long it is remembered: readings within
twice that time count as one.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgefolio.decision.estimates.compute_factor import Measurement
from edgefolio.decision.evidence import READING_SECONDS, forgotten, variance_of
from edgefolio.decision.types import LatencyTest

#: Older windows count half as much.
_HALF_LIFE_SECONDS = 10.0
_LARGEST_LEVEL = math.log(4.0)
_MOST_TOGETHER = 40.0


def with_window_known(test: LatencyTest, measurement: Measurement, *, window: float, elapsed: float) -> LatencyTest:
    """``test`` with the level of another window of ``window`` seconds, ``elapsed`` after the last one."""
    p95 = measurement.p95_milliseconds
    if p95 is None or p95 <= 0:
        return test
    new = min(window, elapsed) if test.known_seconds > 0 else window
    kept = test.known_seconds * 2.0 ** (-new / _HALF_LIFE_SECONDS)
    if not 0 < new + kept < math.inf:
        return test
    level = test.known_level + (math.log(p95) - test.known_level) * new / (new + kept)
    return replace(test, known_level=level, known_seconds=new + kept)


def forgotten_windows(test: LatencyTest) -> LatencyTest:
    """``test`` without the windows: what comes is of another variant, or of another time."""
    return replace(test, known_level=0.0, known_seconds=0.0)


def judged_anew(test: LatencyTest, measurement: Measurement, *, budget: float | None) -> LatencyTest:
    """``test`` with all that is known held against a ``budget`` (milliseconds) that is new.

    Both the latest window and the mean of all must be above it.
    """
    test, p95 = forgotten(test), measurement.p95_milliseconds
    if budget is None or budget <= 0 or p95 is None or p95 <= budget or test.known_seconds <= 0:
        return test
    level = min(_LARGEST_LEVEL, test.known_level - math.log(budget))
    if level <= 0:
        return test
    idle = 1 - math.sqrt(min(max(measurement.utilization, 0.0), 0.999))
    remembered = 2 * measurement.mean_compute_milliseconds / 1000 / (idle * idle)
    together = min(_MOST_TOGETHER, max(1.0, remembered / READING_SECONDS))
    readings = test.known_seconds / READING_SECONDS / together
    weight = readings / variance_of(test, requests=measurement.arrival_rate * READING_SECONDS)
    return replace(
        test,
        weighted_level=level * weight,
        weight=weight,
        readings=math.ceil(readings),
        requests=min(1e9, measurement.arrival_rate * test.known_seconds),
        is_judged_anew=True,
    )
