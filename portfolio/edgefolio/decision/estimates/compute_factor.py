"""Estimator of compute factor and transport time, and the active variant's p95, from Triton's counters.

Signals are means of the counters per version, times the profile's p95 / mean; the server's measured p95 only
confirms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgefolio.decision.estimates.prediction import LARGEST_SENSIBLE, p95_by_mean, total_p95, wait_p95
from edgefolio.decision.types import ProbeResult, Reading, State, TrafficWindow, VariantProfile
from edgefolio.specification.serving import Switching

#: From this utilization on, with requests waiting, the server is saturated.
SATURATED_UTILIZATION = 0.9
#: ... and at least this many requests are inside: with fewer none waits, and the rate is believed.
SATURATED_IN_FLIGHT = 1.5
#: A factor beyond these is a fault.
FACTOR_BOUNDS = (0.02, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A traffic window read for the active variant; ``p95_milliseconds`` is estimated from means (``None``: idle)."""

    requests: int
    failures: int
    arrival_rate: float
    utilization: float
    saturated: bool
    in_flight: float
    merged_requests: float
    factor: float | None
    transport_milliseconds: float | None
    mean_compute_milliseconds: float
    mean_queue_milliseconds: float
    p95_milliseconds: float | None
    #: The server's own p95, where it has one.
    confirmed_p95_milliseconds: float | None


def measure(traffic: TrafficWindow, profile: VariantProfile, *, variability: float = 0.0) -> Measurement | None:
    """Read ``traffic`` for the active variant's usable ``profile``; ``None`` if its numbers make no sense.

    ``variability`` is how much computing scatters here, as a squared coefficient of variation: at least as profiled.
    """
    numbers = (
        traffic.seconds,
        traffic.requests,
        traffic.failures,
        traffic.executions,
        traffic.mean_compute_milliseconds,
        traffic.mean_queue_milliseconds,
        traffic.mean_total_milliseconds,
        traffic.in_flight,
    )
    idle = traffic.requests == 0
    # Means of no requests are 0 / 0 and may be anything.
    if not all(0 <= value <= LARGEST_SENSIBLE for value in (numbers[:4] if idle else numbers)) or traffic.seconds <= 0:
        return None
    confirmed = traffic.p95_milliseconds
    if confirmed is not None and not 0 < confirmed < math.inf:
        confirmed = None
    if idle:
        return Measurement(
            requests=0,
            failures=traffic.failures,
            arrival_rate=0.0,
            utilization=0.0,
            saturated=False,
            in_flight=0.0,
            merged_requests=1.0,
            factor=None,
            transport_milliseconds=None,
            mean_compute_milliseconds=0.0,
            mean_queue_milliseconds=0.0,
            p95_milliseconds=None,
            confirmed_p95_milliseconds=None,
        )
    compute = traffic.mean_compute_milliseconds
    if compute <= 0:
        return None
    executions = min(traffic.executions or traffic.requests, traffic.requests)
    utilization = executions * compute / 1000 / traffic.seconds
    saturated = utilization >= SATURATED_UTILIZATION and traffic.in_flight >= SATURATED_IN_FLIGHT
    transport = max(0.0, traffic.mean_total_milliseconds - traffic.mean_queue_milliseconds - compute)
    queue = traffic.mean_queue_milliseconds
    # Behind a standing queue everyone waits about the same.
    wait = queue if saturated else wait_p95(queue, utilization=utilization, service=compute)
    service_p95 = compute * p95_by_mean(profile, variability=variability)
    return Measurement(
        requests=traffic.requests,
        failures=traffic.failures,
        arrival_rate=traffic.requests / traffic.seconds,
        utilization=utilization,
        saturated=saturated,
        in_flight=traffic.in_flight,
        merged_requests=traffic.requests / executions,
        factor=bounded(compute / profile.mean_milliseconds, FACTOR_BOUNDS),
        transport_milliseconds=transport,
        mean_compute_milliseconds=compute,
        mean_queue_milliseconds=queue,
        p95_milliseconds=transport + total_p95(service=compute, service_p95=service_p95, mean_wait=queue, wait=wait),
        confirmed_p95_milliseconds=confirmed,
    )


def update_estimates(
    state: State,
    *,
    measurement: Measurement,
    probe: ProbeResult | None,
    profile: VariantProfile,
    switching: Switching,
    now: float,
    readings: tuple[Reading, ...] = (),
    recovered: bool = False,
) -> State:
    """``state`` with compute factor and transport updated to ``now``.

    With traffic they follow it (exponentially weighted, half-life half a window, less for few requests): what is new in
    the ``readings``, where there are any, since a window holds what was before as well. ``recovered`` says that they
    have set the factor already. Idle, the factor follows the agent's probe with the probe interval as half-life, and
    without a fresh probe falls back to 1 with ``factorHalfLifeSeconds``.
    """
    elapsed = math.inf if state.factor_updated_at is None else max(0.0, now - state.factor_updated_at)
    if measurement.factor is None:
        target, half_life = 1.0, float(switching.factor_half_life_seconds)
        if probe is not None and _is_fresh(probe, profile, switching):
            target = bounded(probe.compute_milliseconds / profile.mean_milliseconds, FACTOR_BOUNDS)
            half_life = float(switching.probe_interval_seconds)
        idle_for = elapsed if math.isfinite(elapsed) else 0.0
        factor = towards(state.compute_factor, target, weight_of(idle_for, half_life))
        return replace(state, compute_factor=factor, factor_updated_at=now)
    trust = min(1.0, measurement.requests / switching.min_requests)
    weight = weight_of(elapsed, switching.window_seconds / 2) * trust
    transport = towards(state.transport_milliseconds, measurement.transport_milliseconds or 0.0, weight)
    if recovered:
        return replace(state, transport_milliseconds=transport, factor_updated_at=now)
    newest = (
        measurement.factor if state.factor_updated_at is None else newest_factor(readings, profile, measurement.factor)
    )
    if newest is None:
        # Nothing is new; the next that comes counts for the time since.
        return replace(state, transport_milliseconds=transport)
    return replace(
        state,
        compute_factor=towards(state.compute_factor, newest, weight),
        transport_milliseconds=transport,
        factor_updated_at=now,
    )


def newest_factor(readings: tuple[Reading, ...], profile: VariantProfile, of_window: float | None) -> float | None:
    """The compute factor in ``readings``; that of the window without any, and ``None`` if they hold no request."""
    if not readings:
        return of_window
    usable = [
        entry for entry in readings if entry.requests > 0 and 0 < entry.mean_compute_milliseconds <= LARGEST_SENSIBLE
    ]
    requests = sum(float(entry.requests) for entry in usable)
    if requests <= 0:
        return None
    compute = sum(entry.mean_compute_milliseconds * (entry.requests / requests) for entry in usable)
    return bounded(compute / profile.mean_milliseconds, FACTOR_BOUNDS)


def _is_fresh(probe: ProbeResult, profile: VariantProfile, switching: Switching) -> bool:
    return (
        probe.variant == profile.name
        and 0 < probe.compute_milliseconds < math.inf
        and probe.age_seconds <= 2 * switching.probe_interval_seconds + switching.stale_after_seconds
    )


def weight_of(elapsed: float, half_life: float) -> float:
    """Weight of a new value after ``elapsed`` seconds (exponential decay)."""
    return 1.0 - 2.0 ** (-elapsed / half_life) if half_life > 0 else 1.0


def towards(value: float, target: float, weight: float) -> float:
    """``value`` moved by ``weight`` (0 to 1) of the way to ``target``."""
    return value + (target - value) * weight


def bounded(value: float, bounds: tuple[float, float]) -> float:
    """``value`` clamped to the bounds."""
    return min(max(value, bounds[0]), bounds[1])
