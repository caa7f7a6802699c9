"""Estimator of the arrivals: rate, variability, and whether the rate is censored.

A rate is *censored* where it shows the server's capacity, not the demand: when the server is saturated, and when the
clients are a closed loop (each sends the next request after the answer), which shows when a switch makes requests
faster and the rate follows while the number in flight stays. A censored rate is never taken as demand: other variants
are predicted from the requests in flight. One client that asks again at once looks like a steady stream until
a switch has shown the difference; till then it is taken for a stream, which holds the smaller variant.
"""

from __future__ import annotations

from dataclasses import replace

from edgefolio.decision.estimates.compute_factor import SATURATED_UTILIZATION, Measurement, bounded, towards, weight_of
from edgefolio.decision.estimates.computing import variability_of
from edgefolio.decision.estimates.prediction import Conditions, poisson_wait, service_variability
from edgefolio.decision.types import State, TrafficBefore, VariantProfile
from edgefolio.specification.serving import Switching

#: Below this utilization an empty queue tells nothing about arrivals.
_VARIABILITY_UTILIZATION = 0.2
#: A queue that builds up at the onset of an overload must not be learned as wild arrivals.
_VARIABILITY_BOUNDS = (0.1, 10.0)
#: Time in the server must change by this factor at a switch before rates are compared ...
_SPEED_CHANGE = 1.5
#: ... and the clients are a closed loop if the number in flight changes by less than this one
_SAME_IN_FLIGHT = 1.2
#: ... and kept the slower variant at least this busy: clients that wait for the server leave it little rest.
_LOOP_UTILIZATION = 0.8


def is_censored(state: State, measurement: Measurement) -> bool:
    """Whether the measured rate is censored."""
    return measurement.saturated or (state.closed_loop and measurement.requests > 0)


def update_arrivals(
    state: State, *, measurement: Measurement, profile: VariantProfile, switching: Switching, elapsed: float, now: float
) -> State:
    """``state`` with arrival rate, variability and closed-loop flag updated to ``now``.

    ``elapsed`` seconds passed since the last cycle that was believed.
    """
    half_life = float(switching.factor_half_life_seconds)
    decay = weight_of(elapsed, half_life)
    rate = None if state.arrival_rate is None else towards(state.arrival_rate, 0.0, decay)
    if measurement.requests == 0:
        variability = towards(state.arrival_variability, 1.0, decay)
        return replace(state, arrival_rate=rate, arrival_variability=variability, closed_loop=False, before_switch=None)
    state = _detect_closed_loop(state, measurement=measurement, switching=switching, now=now)
    if measurement.saturated:
        return replace(state, arrival_rate=rate, saturated_at=now)
    # Answers from an overload's backlog say nothing about arrivals.
    drained = state.saturated_at is None or now - state.saturated_at > 2 * switching.window_seconds
    if drained and not is_censored(state, measurement):
        rate = max(measurement.arrival_rate, rate or 0.0)
    scatter = variability_of(state, profile)
    found = _variability(measurement, profile, scatter=scatter) if drained else None
    if found is None:
        variability = towards(state.arrival_variability, 1.0, decay)
    else:
        trust = min(1.0, measurement.requests / switching.min_requests)
        variability = towards(
            state.arrival_variability, found, weight_of(elapsed, 2.0 * switching.window_seconds) * trust
        )
    return replace(state, arrival_rate=rate, arrival_variability=variability)


def traffic_before(measurement: Measurement | None, switching: Switching) -> TrafficBefore | None:
    """Traffic on the variant that a switch leaves; ``None`` if too little was seen."""
    if measurement is None or measurement.requests < switching.min_requests or measurement.in_flight <= 0:
        return None
    return TrafficBefore(
        arrival_rate=measurement.arrival_rate,
        in_flight=measurement.in_flight,
        utilization=measurement.utilization,
    )


def conditions_of(
    state: State,
    measurement: Measurement | None,
    *,
    going_down: bool,
    latest: Measurement | None = None,
    variability: float = 0.0,
) -> Conditions:
    """The conditions under which another variant is predicted.

    Where the rate is censored by saturation, the last rate that was not is a lower bound of the demand; on the way down
    also what the server answers now, so that an overloaded stream does not land on a variant that is just as full. On
    the way down the compute factor is not below what was measured last, in the window and in the ``latest`` reading:
    it follows with a delay. ``variability`` is how much computing scatters now.
    """
    rate, in_flight, merged, factor = state.arrival_rate, None, 1.0, state.compute_factor
    if measurement is not None:
        if going_down:
            factor = max(factor, measurement.factor or 0.0, (latest and latest.factor) or 0.0)
        merged = measurement.merged_requests
        if not is_censored(state, measurement):
            rate = measurement.arrival_rate
        else:
            in_flight = measurement.in_flight
            if state.closed_loop:
                rate = None
            elif going_down:
                rate = max(measurement.arrival_rate, rate or 0.0)
    return Conditions(
        compute_factor=factor,
        transport_milliseconds=state.transport_milliseconds,
        arrival_rate=rate,
        in_flight=in_flight,
        arrival_variability=state.arrival_variability,
        merged_requests=merged,
        computing_variability=variability,
    )


def _detect_closed_loop(state: State, *, measurement: Measurement, switching: Switching, now: float) -> State:
    """Whether the clients are a closed loop, once the windows hold nothing of the last switch: rate follows speed."""
    before, switched = state.before_switch, state.last_switch_at
    if before is None or switched is None or measurement.requests < switching.min_requests:
        return state
    if now - switched < switching.settle_seconds + 2 * switching.window_seconds:
        return state
    state = replace(state, before_switch=None)
    if measurement.in_flight <= 0:
        return state
    in_flight = measurement.in_flight / before.in_flight
    speed = in_flight * before.arrival_rate / measurement.arrival_rate
    if 1 / _SPEED_CHANGE < speed < _SPEED_CHANGE:
        return state
    busy = before.utilization if speed < 1 else measurement.utilization
    closed = busy >= _LOOP_UTILIZATION and 1 / _SAME_IN_FLIGHT < in_flight < _SAME_IN_FLIGHT
    return replace(state, closed_loop=closed)


def _variability(measurement: Measurement, profile: VariantProfile, *, scatter: float) -> float | None:
    """Ca2 that explains the measured queue (Allen-Cunneen, solved for it); ``None`` where the queue says nothing."""
    utilization, compute = measurement.utilization, measurement.mean_compute_milliseconds
    if not 0 < utilization < SATURATED_UTILIZATION:
        return None
    half = poisson_wait(utilization, service=compute)
    queue = measurement.mean_queue_milliseconds
    heavy = queue > 4 * half and queue > compute / 10
    if half <= 0 or (utilization < _VARIABILITY_UTILIZATION and not heavy):
        return None
    return bounded(queue / half - service_variability(profile, at_least=scatter), _VARIABILITY_BOUNDS)
