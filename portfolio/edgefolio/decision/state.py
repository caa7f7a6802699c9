"""Transitions of the state: clock jumps, switches and failures; and its JSON for the agent's volume."""

from __future__ import annotations

import json
from dataclasses import replace

from edgefolio.decision.changed_objective import forgotten_windows
from edgefolio.decision.encoding import decoded, encoded
from edgefolio.decision.estimates.prediction import LARGEST_SENSIBLE
from edgefolio.decision.evidence import forgotten
from edgefolio.decision.types import Computing, FittingVariant, LatencyTest, Quarantine, State, TrafficBefore
from edgefolio.specification.serving import Switching

HOUR_SECONDS = 3600.0
#: Doubling ends here: a quarantined variant is tried at least once a day, a bounced upgrade once an hour.
_LONGEST_QUARANTINE_SECONDS = 86_400.0
LONGEST_BACKOFF_SECONDS = HOUR_SECONDS
#: More switches in an hour than the largest budget allows are not counted.
_REMEMBERED_SWITCHES = 3600
_FIRST_RETRY_SECONDS = 10.0
#: Thirty million years.
_LARGEST_TIME = 1e15
#: The end of the year 9999.
_LATEST_TIME = 253_402_300_799.0


def state_after_switch(state: State, *, variant: str, now: float) -> State:
    """``state`` once ``variant`` serves, verified: dwell and budget start, the violation ends."""
    if not is_time(now):
        return state
    kept = tuple(entry for entry in state.quarantined if entry.variant != variant or entry.until <= now)
    recent = (*(time for time in state.recent_switches if time > now - HOUR_SECONDS), now)
    return replace(
        state,
        violation_since=None,
        violation_requests=0.0,
        # Another variant has another level; how much readings scatter is the endpoint's.
        latency_test=replace(forgotten_windows(forgotten(state.latency_test)), calm_level=None),
        computing=Computing(),
        calm_since=None,
        peers_lost_since=None,
        late_fallback_since=None,
        fitting=tuple(entry for entry in state.fitting if entry.variant != variant),
        last_switch_at=now,
        recent_switches=recent[-_REMEMBERED_SWITCHES:],
        quarantined=kept,
    )


def state_after_failure(state: State, *, variant: str, cause: str, now: float, switching: Switching) -> State:
    """``state`` after ``variant`` failed to load or to answer: quarantined, twice as long as the last time."""
    if not is_time(now):
        return state
    before = next((entry for entry in state.quarantined if entry.variant == variant), None)
    failures = (before.failures if before else 0) + 1
    record = Quarantine(
        variant=variant,
        until=now + quarantine_seconds(failures, switching),
        failures=failures,
        cause=cause[:500],
    )
    others = tuple(entry for entry in state.quarantined if entry.variant != variant)
    return replace(state, fitting=(), quarantined=(*others, record))


def quarantine_seconds(failures: int, switching: Switching) -> float:
    """Length of the quarantine after this many failures."""
    return float(min(switching.quarantine_seconds * 2.0 ** min(failures - 1, 30), _LONGEST_QUARANTINE_SECONDS))


def retry_at(entry: Quarantine, switching: Switching) -> float:
    """When an endpoint that serves *nothing* tries this variant again: 10, 20, 40, ... s after it failed."""
    length = quarantine_seconds(entry.failures, switching)
    return entry.until - length + min(length, _FIRST_RETRY_SECONDS * 2.0 ** min(entry.failures - 1, 30))


def is_quarantined(state: State, variant: str, now: float) -> bool:
    """Whether ``variant`` is quarantined at ``now``."""
    return any(entry.variant == variant and entry.until > now for entry in state.quarantined)


def sanitized(state: State, *, now: float, switching: Switching) -> State:
    """``state`` with every number usable at ``now``: no time in the future, nothing infinite, old entries dropped."""

    def past(time: float | None) -> float | None:
        return None if time is None or not is_time(time) else min(time, now)

    def number(value: float, otherwise: float) -> float:
        return value if 0 <= value <= LARGEST_SENSIBLE else otherwise

    recent = (past(time) for time in state.recent_switches)
    quarantined = []
    for entry in state.quarantined:
        length = quarantine_seconds(max(1, entry.failures), switching)
        until = min(entry.until, now + length) if is_time(entry.until) or entry.until > now else now + length
        # An expired entry is kept as long again: a failure soon after doubles.
        if until + length > now:
            quarantined.append(replace(entry, until=until, failures=max(1, entry.failures)))
    backoffs = tuple(
        replace(entry, until=min(entry.until, now + LONGEST_BACKOFF_SECONDS))
        for entry in state.upgrade_backoffs
        if entry.until > now - LONGEST_BACKOFF_SECONDS
    )
    rate = state.arrival_rate
    return replace(
        state,
        compute_factor=number(state.compute_factor, 1.0) or 1.0,
        transport_milliseconds=number(state.transport_milliseconds, 0.0),
        arrival_variability=number(state.arrival_variability, 1.0),
        factor_updated_at=past(state.factor_updated_at),
        arrival_rate=rate if rate is not None and 0 <= rate <= LARGEST_SENSIBLE else None,
        saturated_at=past(state.saturated_at),
        before_switch=_comparable(state.before_switch),
        observed_at=past(state.observed_at),
        violation_since=past(state.violation_since),
        violation_requests=number(state.violation_requests, 0.0),
        failing_since=past(state.failing_since),
        fitting=tuple(
            FittingVariant(variant=entry.variant, since=since)
            for entry in state.fitting
            if (since := past(entry.since)) is not None
        ),
        last_switch_at=past(state.last_switch_at),
        recent_switches=tuple(time for time in recent if time is not None and now - time < HOUR_SECONDS),
        quarantined=tuple(quarantined),
        upgraded_at=past(state.upgraded_at),
        upgrade_backoffs=backoffs,
        calm_since=past(state.calm_since),
        slowest_factor=number(state.slowest_factor, 1.0) or 1.0,
        slowest_updated_at=past(state.slowest_updated_at),
        standby_released_at=past(state.standby_released_at),
        latency_test=_usable_test(state.latency_test),
        computing=_usable_computing(state.computing),
        peers_lost_since=past(state.peers_lost_since),
        late_fallback_since=past(state.late_fallback_since),
        own_factors=tuple(entry for entry in state.own_factors if 0 < entry.factor <= LARGEST_SENSIBLE),
        descent=None
        if state.descent is None or (descended := past(state.descent.at)) is None or now - descended >= HOUR_SECONDS
        else replace(state.descent, at=descended),
    )


def shifted(state: State, seconds: float) -> State:
    """``state`` with every time moved by ``seconds``, as for a reader with another clock."""

    def moved(time: float | None) -> float | None:
        if time is None or time != time:
            return None
        return min(max(min(max(time, -_LARGEST_TIME), _LARGEST_TIME) + seconds, 0.0), _LATEST_TIME)

    def known(time: float) -> float:
        return moved(time) or 0.0

    return replace(
        state,
        factor_updated_at=moved(state.factor_updated_at),
        saturated_at=moved(state.saturated_at),
        observed_at=moved(state.observed_at),
        violation_since=moved(state.violation_since),
        failing_since=moved(state.failing_since),
        last_switch_at=moved(state.last_switch_at),
        upgraded_at=moved(state.upgraded_at),
        calm_since=moved(state.calm_since),
        slowest_updated_at=moved(state.slowest_updated_at),
        standby_released_at=moved(state.standby_released_at),
        peers_lost_since=moved(state.peers_lost_since),
        late_fallback_since=moved(state.late_fallback_since),
        descent=state.descent and replace(state.descent, at=known(state.descent.at)),
        fitting=tuple(replace(entry, since=known(entry.since)) for entry in state.fitting),
        recent_switches=tuple(known(time) for time in state.recent_switches),
        quarantined=tuple(replace(entry, until=known(entry.until)) for entry in state.quarantined),
        upgrade_backoffs=tuple(replace(entry, until=known(entry.until)) for entry in state.upgrade_backoffs),
    )


def _comparable(before: TrafficBefore | None) -> TrafficBefore | None:
    if before is None or not (
        0 < before.arrival_rate <= LARGEST_SENSIBLE
        and 0 < before.in_flight <= LARGEST_SENSIBLE
        and 0 <= before.utilization <= LARGEST_SENSIBLE
    ):
        return None
    return before


def _usable_test(test: LatencyTest) -> LatencyTest:
    """``test``, or a fresh one if a number in it cannot be computed with."""
    signed = (test.weighted_level, test.calm_level or 0.0, test.budget or 0.0, test.known_level)
    counts = (test.weight, test.requests, test.squares, test.silent_seconds, test.readings, test.pending)
    others = (*counts, test.known_seconds)
    usable = all(-LARGEST_SENSIBLE <= number <= LARGEST_SENSIBLE for number in signed)
    usable = usable and all(0 <= number <= LARGEST_SENSIBLE for number in others)
    return test if usable and 0 < test.scatter <= LARGEST_SENSIBLE else LatencyTest()


def _usable_computing(found: Computing) -> Computing:
    """``found``, or nothing known if a number in it cannot be computed with."""
    signed = (found.weighted_change, found.last or 0.0)
    others = (found.variability, found.pairs, found.last_requests, found.weight, found.readings)
    usable = all(-LARGEST_SENSIBLE <= number <= LARGEST_SENSIBLE for number in signed)
    return found if usable and all(0 <= number <= LARGEST_SENSIBLE for number in others) else Computing()


def is_time(time: float) -> bool:
    """Whether ``time`` can be computed with: neither NaN nor infinite, and within thirty million years."""
    return -_LARGEST_TIME <= time <= _LARGEST_TIME


def state_to_json(state: State) -> str:
    """``state`` as one line of JSON, for the agent's volume."""
    return json.dumps(encoded(state), sort_keys=True)


def state_from_json(text: str) -> State:
    """Read what :func:`state_to_json` wrote. Unknown fields are ignored; anything else wrong raises ValueError."""
    try:
        return decoded(State, json.loads(text), ignore_unknown=True)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
