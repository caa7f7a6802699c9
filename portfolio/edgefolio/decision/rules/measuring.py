"""Measurement of one cycle: whether its metrics are believed, and the estimates, timers and tests that follow them."""

from __future__ import annotations

from dataclasses import replace

from edgefolio.decision.changed_objective import forgotten_windows, judged_anew, with_window_known
from edgefolio.decision.choice import latency_budget
from edgefolio.decision.context import RuleContext
from edgefolio.decision.estimates.arrivals import update_arrivals
from edgefolio.decision.estimates.compute_factor import Measurement, measure, newest_factor, update_estimates
from edgefolio.decision.estimates.computing import variability_of, with_computing
from edgefolio.decision.estimates.network import with_own_compute
from edgefolio.decision.estimates.own_factors import learned_from_probe
from edgefolio.decision.evidence import SURE, forgotten, with_readings, with_window
from edgefolio.decision.rules.splits import with_split_timers
from edgefolio.decision.rules.standby import remember_slowest
from edgefolio.decision.rules.timers import update_timers
from edgefolio.decision.types import LatencyTest, Reason, ServerState, State


def with_measurement(context: RuleContext) -> tuple[tuple[Reason, str] | None, RuleContext]:
    """``context`` with its measurement, estimates and timers, or why its metrics are not believed.

    The active variant must have a profile.
    """
    problem = _unusable_metrics(context)
    return _measured(context) if problem is None else (problem, context)


def _unusable_metrics(context: RuleContext) -> tuple[Reason, str] | None:
    """Why this cycle's metrics cannot be used; ``None`` if they can."""
    switching, traffic, memory = context.switching, context.observation.traffic, context.observation.memory
    since_switch = context.since_switch
    if since_switch is not None and since_switch < switching.settle_seconds:
        text = f"The last switch was {since_switch:.1f} s ago; measurements count from {switching.settle_seconds} s."
        return Reason.SETTLING, text
    if context.observation.server is ServerState.UNKNOWN:
        return Reason.MISSING_METRICS, "Whether the server answers is not known."
    if traffic is None:
        return Reason.MISSING_METRICS, "The server's counters could not be read."
    for what, age in (("counters", traffic.age_seconds), ("memory figures", memory.age_seconds if memory else 0.0)):
        # Written so that a NaN age counts as stale.
        if not age <= switching.stale_after_seconds:
            text = f"The server's {what} are {age:.4g} s old; at most {switching.stale_after_seconds} s are believed."
            return Reason.STALE_METRICS, text
    return None


def _measured(context: RuleContext) -> tuple[tuple[Reason, str] | None, RuleContext]:
    """``context`` with its measurement, estimates and timers; or why the numbers cannot be used."""
    state, switching, traffic, active = context.state, context.switching, context.observation.traffic, context.active
    assert traffic is not None
    assert active is not None
    measurement = measure(traffic, active, variability=variability_of(state, active))
    if measurement is None:
        text = "The server's counters make no sense: a value is negative, infinite, or zero where it cannot be."
        return (Reason.MISSING_METRICS, text), context
    # Timers mean "without a break": a gap longer than the staleness limit resets them.
    longest = max(float(switching.stale_after_seconds), 3 * float(switching.observe_seconds))
    elapsed = 0.0 if state.observed_at is None else context.now - state.observed_at
    if state.observed_at is None or elapsed > longest:
        state = replace(
            state,
            violation_since=None,
            violation_requests=0.0,
            failing_since=None,
            fitting=(),
            calm_since=None,
            peers_lost_since=None,
            late_fallback_since=None,
            latency_test=forgotten_windows(forgotten(state.latency_test)),
        )
    state = replace(state, observed_at=context.now)
    if active.split is None:
        state = _estimated(context, state, measurement, elapsed=elapsed)
    else:
        measurement, state = _estimated_of_split(context, state, measurement)
    state = update_arrivals(
        state, measurement=measurement, profile=active, switching=switching, elapsed=elapsed, now=context.now
    )
    state = remember_slowest(state, now=context.now)
    context = replace(context, state=state, measurement=measurement)
    # A context remembers what it derived from its state, so this is another one.
    context = replace(context, state=replace(state, latency_test=_tested(context, measurement, elapsed=elapsed)))
    return None, replace(context, state=with_split_timers(context, update_timers(context, elapsed=elapsed)))


def _estimated(context: RuleContext, state: State, measurement: Measurement, *, elapsed: float) -> State:
    """``state`` with the estimates that a variant of one node allows."""
    traffic, active, standby = context.observation.traffic, context.known_active, context.observation.standby_probe
    assert traffic is not None
    state, recovered = with_computing(state, traffic.readings, profile=active, sure=SURE)
    state = update_estimates(
        state,
        measurement=measurement,
        probe=context.observation.probe,
        profile=active,
        switching=context.switching,
        now=context.now,
        readings=traffic.readings,
        recovered=recovered,
    )
    probed = None if standby is None else context.profile(standby.variant)
    if probed is not None and probed.split is not None:
        return state
    return learned_from_probe(
        state,
        standby,
        profile=probed,
        active=active,
        elapsed=elapsed,
        latest=newest_factor(traffic.readings, active, measurement.factor),
    )


def _estimated_of_split(context: RuleContext, state: State, measurement: Measurement) -> tuple[Measurement, State]:
    """``measurement`` with the factor of this worker's own computing, and ``state`` that follows it.

    What Triton counts, in windows, readings and probes, holds the wait for the peers.
    """
    workers = context.observation.worker_set
    measurement = with_own_compute(measurement, context.known_active, workers)
    if measurement.factor is None and measurement.requests:
        return measurement, state
    # Jobs of all entries were computed, and say how fast, whoever was asked.
    counted = measurement.requests if measurement.factor is None or workers is None else workers.own_jobs
    state = update_estimates(
        state,
        measurement=replace(measurement, requests=counted),
        probe=None,
        profile=context.known_active,
        switching=context.switching,
        now=context.now,
    )
    return measurement, state


def _tested(context: RuleContext, measurement: Measurement, *, elapsed: float) -> LatencyTest:
    """The test of a violation after what this observation says."""
    state, traffic, active = context.state, context.observation.traffic, context.known_active
    assert traffic is not None
    test, budget = state.latency_test, latency_budget(context.objectives)
    is_changed = test.known_seconds > 0 and test.budget != budget
    test = with_window_known(replace(test, budget=budget), measurement, window=traffic.seconds, elapsed=elapsed)
    if is_changed:
        # The readings are in the windows that it knows.
        return judged_anew(test, measurement, budget=budget)
    if traffic.readings:
        variability = variability_of(state, active)
        return with_readings(test, traffic.readings, profile=active, budget=budget, variability=variability)
    if context.violates_by_window:
        return with_window(test, measurement, budget=budget, elapsed=elapsed)
    return forgotten(test)
