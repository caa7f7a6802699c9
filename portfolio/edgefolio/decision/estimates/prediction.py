"""Latency model: the p95 of a variant, from its profile and the conditions at the endpoint.

    p95(variant) = a + s + Wq + sqrt((f * profile p95 - s)^2 + (wait p95 - Wq)^2),    s = f * profile mean

``a`` is transport (everything in the server that is neither queue nor compute), ``f`` the compute factor (how much
slower this node computes now than the profile says): means add, and so do the squares of what two independent parts
have above their means at the 95th percentile. The wait comes from one of two models:

* **Open** (the arrival rate is known): G/G/1 in the approximation of Allen and Cunneen,
  ``Wq = rho * s / (1 - rho) * (Ca2 + Cs2) / 2`` with the utilization ``rho`` (also the probability to wait), mean
  service time ``s``, and squared coefficients of variation of arrivals and service (A. O. Allen, *Probability,
  Statistics, and Queueing Theory with Computer Science Applications*, 2nd ed., 1990, section 5.3). The wait of those
  that wait is taken as exponential (exact for M/M/1; W. Whitt, "Approximations for the GI/G/m queue", Production and
  Operations Management 2(2), 1993), so its 95th percentile is ``Wq / P * ln(P / 0.05)`` where ``P`` waits at all.
* **Closed** (the rate is censored: the server is saturated and ``L`` requests are inside it): the requests ahead are
  computed first, ``wait = max(0, L - 1) * s``. A faster variant answers more of them, so the rate says nothing.

A split computes and sends in turn: ``s = f * profile mean + network``, with ``f`` of the slowest worker. Its entries
share the workers, so the utilization is that of the slowest worker under the requests of *all* entries, or that of this
entry, which has one job under way at a time, if that is more.

Against simulated M/G/1 (log-normal service) the open model is within 10 % up to 85 % utilization;
above, it errs to the careful side. A test holds that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgefolio.decision.types import SplitProfile, VariantProfile

#: A variant other than the active one is never taken if it would be busy for a larger share of the time than this.
UTILIZATION_CAP = 0.85
#: A number beyond this (milliseconds, requests per second, ...: eleven days, a billion) is a fault.
LARGEST_SENSIBLE = 1e9
#: No machine has more memory.
LARGEST_BYTES = 2**63
#: The share of requests that may be slower than the latency in the objective.
_TAIL = 0.05
#: Standard normal 95th percentile.
_Z95 = 1.6448536269514722


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions at an endpoint under which a variant is predicted.

    ``arrival_rate`` in requests per second, ``in_flight`` (requests inside the server) set where the rate is censored;
    then ``arrival_rate`` is only a lower bound of the demand, or ``None``. ``merged_requests`` is how many requests one
    execution answers (dynamic batching).
    """

    compute_factor: float = 1.0
    transport_milliseconds: float = 0.0
    arrival_rate: float | None = None
    in_flight: float | None = None
    arrival_variability: float = 1.0
    merged_requests: float = 1.0
    #: Squared coefficient of variation of computing that the node shows now, beyond what a profile says.
    computing_variability: float = 0.0
    #: What a request spends between the workers of a split; infinite where the links are not known.
    network_milliseconds: float = 0.0
    #: Requests a second that all entries of a set of workers get; each of them computes its part of every one.
    rate_of_all_entries: float | None = None


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Predicted p95 in milliseconds (``None``: the queue grows without end) and utilization (``None``: unknown)."""

    p95_milliseconds: float | None
    utilization: float | None


def is_usable(profile: VariantProfile) -> bool:
    """Whether every figure of ``profile`` is finite and in range."""
    latencies = (profile.mean_milliseconds, profile.p95_milliseconds)
    memory = (profile.memory_peak_bytes, profile.memory_steady_bytes)
    return (
        all(0 < value <= LARGEST_SENSIBLE for value in latencies)
        and all(0 <= value <= LARGEST_BYTES for value in memory)
        and 0 <= profile.accuracy_percent <= 100
        and (profile.split is None or _is_usable_split(profile.split))
    )


def _is_usable_split(split: SplitProfile) -> bool:
    amounts = (split.exchanges, split.bytes_into_busiest, split.input_bytes)
    return (
        2 <= split.workers <= LARGEST_SENSIBLE
        and all(0 <= amount <= LARGEST_BYTES for amount in amounts)
        and all(0 < value <= LARGEST_SENSIBLE for value in split.shard_milliseconds)
    )


def expected_latency(profile: VariantProfile, conditions: Conditions) -> Expectation:
    """Predicted latency of this variant under ``conditions``; ``profile`` must be usable."""
    computing = conditions.compute_factor * profile.mean_milliseconds
    network = conditions.network_milliseconds
    if not network <= LARGEST_SENSIBLE:
        return Expectation(p95_milliseconds=None, utilization=None)
    service = computing + network
    # A profile's mean can lie above its p95: a few outliers suffice.
    variability = conditions.computing_variability
    service_p95 = max(service, computing * p95_by_mean(profile, variability=variability) + network)
    transport = conditions.transport_milliseconds
    utilization = None
    if conditions.arrival_rate is not None:
        executions = conditions.arrival_rate / max(1.0, conditions.merged_requests)
        utilization = executions * service / 1000
    if conditions.rate_of_all_entries is not None:
        # An entry has one job at a time under way; a worker computes for all entries, and waits for none.
        utilization = max(utilization or 0.0, conditions.rate_of_all_entries * computing / 1000)
    if conditions.in_flight is not None:
        wait = max(0.0, conditions.in_flight - 1) * service
        return _expectation(transport + service_p95 + wait, utilization)
    if utilization is None:
        return _expectation(transport + service_p95, None)
    if not utilization < 1:
        return Expectation(p95_milliseconds=None, utilization=utilization)
    mean_wait = poisson_wait(utilization, service=service) * (
        conditions.arrival_variability + service_variability(profile, at_least=variability)
    )
    wait = wait_p95(mean_wait, utilization=utilization, service=service)
    total = total_p95(service=service, service_p95=service_p95, mean_wait=mean_wait, wait=wait)
    return _expectation(transport + total, utilization)


def total_p95(*, service: float, service_p95: float, mean_wait: float, wait: float) -> float:
    """95th percentile of service and wait together, from the means and the 95th percentiles of both."""
    above = math.hypot(max(0.0, service_p95 - service), max(0.0, wait - mean_wait))
    return service + mean_wait + above


def poisson_wait(utilization: float, *, service: float) -> float:
    """Half of the M/M/1 mean wait, in the unit of ``service``: Allen-Cunneen multiplies it by Ca2 + Cs2."""
    return utilization * service / (1 - utilization) / 2


def wait_p95(mean_wait: float, *, utilization: float, service: float) -> float:
    """95th percentile of the wait whose mean over all requests is ``mean_wait`` (same unit as ``service``)."""
    if mean_wait <= 0 or service <= 0:
        return 0.0
    # With one server the probability of waiting is the utilization.
    probability = utilization = min(max(utilization, 0.0), 0.999)
    if mean_wait > 4 * poisson_wait(utilization, service=service):
        # Far heavier than Poisson arrivals explain: bursts, in which nearly everyone waits.
        probability = max(probability, min(1.0, mean_wait / service))
    return mean_wait / probability * math.log(probability / _TAIL) if probability > _TAIL else 0.0


def p95_by_mean(profile: VariantProfile, *, variability: float = 0.0) -> float:
    """95th percentile of computing by its mean: the profile's, or that of a log-normal time with ``variability``.

    A profile is of an idle node. Where others take the processor for some requests and not for others, times scatter
    more than it says, and ``variability``, the squared coefficient of variation there, is larger than the profile's.
    """
    square = math.log1p(max(0.0, variability))
    return max(profile.p95_milliseconds / profile.mean_milliseconds, math.exp(_Z95 * math.sqrt(square) - square / 2))


def service_variability(profile: VariantProfile, *, at_least: float = 0.0) -> float:
    """Squared coefficient of variation of the service time, from the profile's p95 / mean; ``at_least`` as seen here.

    For a log-normal time with parameter sigma, p95 / mean = exp(z * sigma - sigma^2 / 2); solved for sigma, the result
    is exp(sigma^2) - 1. Beyond the largest ratio that a log-normal can have, it is bounded by that one.
    """
    ratio = math.log(max(1.0, profile.p95_milliseconds / profile.mean_milliseconds))
    sigma = _Z95 - math.sqrt(max(0.0, _Z95 * _Z95 - 2 * ratio))
    return max(at_least, math.expm1(sigma * sigma))


def _expectation(p95: float, utilization: float | None) -> Expectation:
    return Expectation(p95_milliseconds=p95 if p95 <= LARGEST_SENSIBLE else None, utilization=utilization)
