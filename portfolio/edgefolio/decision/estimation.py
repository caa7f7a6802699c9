"""What the counters say of the endpoint: compute factor, transport, arrivals, and the active variant's own p95.

Signals are means of Triton's per-version counters, times the profile's p95 / mean; the server's measured p95 only
confirms. A rate seen while the server is saturated is *censored*: it says what the server can do, not what is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgefolio.decision.prediction import Conditions, poisson_wait, service_variability, wait_p95
from edgefolio.decision.types import Observation, ProbeResult, State, TrafficWindow, VariantProfile
from edgefolio.specification.serving import Switching

#: From this utilization on, with requests waiting, the server is saturated and its rate censored.
SATURATED_UTILIZATION = 0.9
#: ... and at least this many requests per instance are inside: with fewer nobody waits, and the rate is believed.
SATURATED_IN_FLIGHT = 1.5
#: Below this utilization a missing queue says nothing about the arrivals.
_VARIABILITY_UTILIZATION = 0.2
_FACTOR_BOUNDS = (0.02, 1000.0)
_VARIABILITY_BOUNDS = (0.1, 200.0)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A traffic window read for the active variant; ``p95_milliseconds`` is estimated from means (``None``: idle)."""

    requests: int
    failures: int
    arrival_rate: float
    utilization: float
    censored: bool
    in_flight: float
    merged_requests: float
    factor: float | None
    transport_milliseconds: float | None
    variability: float | None
    p95_milliseconds: float | None
    #: The server's own p95, where it has one.
    confirmed_p95_milliseconds: float | None


def measure(traffic: TrafficWindow, profile: VariantProfile, *, instances: int) -> Measurement | None:
    """Read ``traffic`` for the active variant's usable ``profile``; ``None`` if its numbers make no sense."""
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
    if not all(0 <= value < math.inf for value in (numbers[:4] if idle else numbers)) or traffic.seconds <= 0:
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
            censored=False,
            in_flight=0.0,
            merged_requests=1.0,
            factor=None,
            transport_milliseconds=None,
            variability=None,
            p95_milliseconds=None,
            confirmed_p95_milliseconds=None,
        )
    compute = traffic.mean_compute_milliseconds
    if compute <= 0:
        return None
    instances = max(1, instances)
    executions = min(traffic.executions or traffic.requests, traffic.requests)
    utilization = executions * compute / 1000 / traffic.seconds / instances
    censored = utilization >= SATURATED_UTILIZATION and traffic.in_flight >= SATURATED_IN_FLIGHT * instances
    transport = max(0.0, traffic.mean_total_milliseconds - traffic.mean_queue_milliseconds - compute)
    if censored:
        # All are behind a standing queue: its mean is what nearly everyone waits.
        wait = traffic.mean_queue_milliseconds
    else:
        wait = wait_p95(traffic.mean_queue_milliseconds, utilization=utilization, service=compute, instances=instances)
    return Measurement(
        requests=traffic.requests,
        failures=traffic.failures,
        arrival_rate=traffic.requests / traffic.seconds,
        utilization=utilization,
        censored=censored,
        in_flight=traffic.in_flight,
        merged_requests=traffic.requests / executions,
        factor=_bounded(compute / profile.mean_milliseconds, _FACTOR_BOUNDS),
        transport_milliseconds=transport,
        variability=None
        if censored
        else _arrival_variability(traffic, profile, utilization=utilization, instances=instances),
        p95_milliseconds=transport + compute * (profile.p95_milliseconds / profile.mean_milliseconds) + wait,
        confirmed_p95_milliseconds=confirmed,
    )


def estimated(
    state: State,
    *,
    measurement: Measurement | None,
    probe: ProbeResult | None,
    profile: VariantProfile,
    switching: Switching,
    now: float,
) -> State:
    """``state`` with compute factor, transport, arrival variability and uncensored rate brought up to ``now``.

    With traffic they follow it (exponentially weighted, half-life half a window, less for few requests). Idle, the
    factor follows the agent's probe with the probe interval as half-life, and without a fresh probe falls back to 1.
    """
    elapsed = math.inf if state.factor_updated_at is None else max(0.0, now - state.factor_updated_at)
    half_life = float(switching.factor_half_life_seconds)
    rate = state.arrival_rate * 2 ** (-_finite(elapsed) / half_life) if state.arrival_rate is not None else None
    if measurement is None:
        return replace(state, arrival_rate=rate, factor_updated_at=now)
    if measurement.factor is None:
        target, towards = 1.0, half_life
        if probe is not None and _is_fresh(probe, profile, switching):
            target = _bounded(probe.compute_milliseconds / profile.mean_milliseconds, _FACTOR_BOUNDS)
            towards = float(switching.probe_interval_seconds)
        idle_for = _finite(elapsed)
        return replace(
            state,
            compute_factor=_towards(state.compute_factor, target, _weight(idle_for, towards)),
            arrival_variability=_towards(state.arrival_variability, 1.0, _weight(idle_for, half_life)),
            arrival_rate=rate,
            factor_updated_at=now,
        )
    trust = min(1.0, measurement.requests / switching.min_requests)
    weight = _weight(elapsed, switching.window_seconds / 2) * trust
    slow = _weight(_finite(elapsed), 2.0 * switching.window_seconds) * trust
    if not measurement.censored:
        rate = max(measurement.arrival_rate, rate or 0.0)
    return replace(
        state,
        compute_factor=_towards(state.compute_factor, measurement.factor, weight),
        transport_milliseconds=_towards(
            state.transport_milliseconds, measurement.transport_milliseconds or 0.0, weight
        ),
        arrival_variability=state.arrival_variability
        if measurement.variability is None
        else _towards(state.arrival_variability, measurement.variability, slow),
        arrival_rate=rate,
        factor_updated_at=now,
    )


def conditions_of(
    state: State, measurement: Measurement | None, *, observation: Observation, going_down: bool
) -> Conditions:
    """The conditions under which another variant is predicted.

    Where the rate is censored, the lower bound of the demand is the last rate that was not; on the way down also what
    the server answers now, so that an overloaded open loop does not land on a variant that is just as full.
    """
    common = {
        "compute_factor": state.compute_factor,
        "transport_milliseconds": state.transport_milliseconds,
        "arrival_variability": state.arrival_variability,
    }
    instances = max(1, observation.instances)
    if measurement is None:
        return Conditions(**common, arrival_rate=state.arrival_rate, instances=instances)
    rate: float | None = measurement.arrival_rate
    if measurement.censored:
        rate = state.arrival_rate
        if going_down:
            rate = max(measurement.arrival_rate, rate or 0.0)
    return Conditions(
        **common,
        arrival_rate=rate,
        in_flight=measurement.in_flight if measurement.censored else None,
        instances=instances,
        merged_requests=measurement.merged_requests,
    )


def _arrival_variability(
    traffic: TrafficWindow, profile: VariantProfile, *, utilization: float, instances: int
) -> float | None:
    """Ca2 that explains the measured queue (Allen-Cunneen, solved for it); ``None`` where the queue says nothing."""
    if not 0 < utilization < SATURATED_UTILIZATION:
        return None
    half = poisson_wait(utilization, service=traffic.mean_compute_milliseconds, instances=instances)
    queue = traffic.mean_queue_milliseconds
    heavy = queue > 4 * half and queue > traffic.mean_compute_milliseconds / 10
    if half <= 0 or (utilization < _VARIABILITY_UTILIZATION and not heavy):
        return None
    return _bounded(queue / half - service_variability(profile), _VARIABILITY_BOUNDS)


def _is_fresh(probe: ProbeResult, profile: VariantProfile, switching: Switching) -> bool:
    return (
        probe.variant == profile.name
        and 0 < probe.compute_milliseconds < math.inf
        and probe.age_seconds <= 2 * switching.probe_interval_seconds + switching.stale_after_seconds
    )


def _weight(elapsed: float, half_life: float) -> float:
    return 1.0 - 2.0 ** (-elapsed / half_life) if half_life > 0 else 1.0


def _towards(value: float, target: float, weight: float) -> float:
    return value + (target - value) * weight


def _finite(elapsed: float) -> float:
    """The first cycle has no earlier one: nothing decays over it."""
    return elapsed if math.isfinite(elapsed) else 0.0


def _bounded(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
