"""Between the decision core and the ``status`` of a ModelEndpoint: what the agent reports and the operator reads.

A status holds no floats and whole seconds. What is written and read again is therefore the same within a millisecond of
latency, a percent of the compute factor and a second of time; nothing in the core depends on more. An observation is
reported when it changes, and at the latest at ``validUntil``: until then no news means no change, and its ages stand
still; afterwards they grow, and the core holds because it is stale.
"""

from __future__ import annotations

import math

from edgefolio.decision.types import (
    Decision,
    MemoryState,
    Observation,
    ProbeResult,
    Quarantine,
    ServerState,
    State,
    TrafficWindow,
    UpgradeBackoff,
    VariantProfile,
)
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.endpoint import (
    DecisionReport,
    EndpointStatus,
    MemoryReport,
    ObservationReport,
    ProbeReport,
    QuarantineReport,
    TrafficReport,
    UpgradeBackoffReport,
)
from edgefolio.specification.portfolio_status import VariantStatus

_LARGEST_DECIMAL = 999_999_999.0
_REMEMBERED_SWITCHES = 16
_LARGEST_BYTES = 2**53


def variant_status_of(profile: VariantProfile) -> VariantStatus:
    """The compact profile of a variant, as a portfolio's status and a Job's last words hold it."""
    return VariantStatus(
        name=profile.name,
        rank=profile.rank,
        accuracy_percent=decimal_text(profile.accuracy_percent),
        mean_milliseconds=decimal_text(profile.mean_milliseconds),
        p95_milliseconds=decimal_text(profile.p95_milliseconds),
        load_milliseconds=decimal_text(profile.load_milliseconds),
        memory_peak_bytes=_bytes(profile.memory_peak_bytes),
        memory_steady_bytes=_bytes(profile.memory_steady_bytes),
    )


def profile_of(variant: VariantStatus) -> VariantProfile:
    """What the core must know of a variant."""
    return VariantProfile(
        name=variant.name,
        rank=variant.rank,
        accuracy_percent=float(variant.accuracy_percent),
        mean_milliseconds=float(variant.mean_milliseconds),
        p95_milliseconds=float(variant.p95_milliseconds),
        load_milliseconds=float(variant.load_milliseconds),
        memory_peak_bytes=variant.memory_peak_bytes,
        memory_steady_bytes=variant.memory_steady_bytes,
    )


def report_of_observation(observation: Observation, *, now: float, valid_seconds: float) -> ObservationReport:
    """``observation`` of the instant ``now`` as a report that holds for ``valid_seconds``."""
    traffic, probe, memory = observation.traffic, observation.probe, observation.memory
    return ObservationReport(
        time=time_text(now),
        valid_until=time_text(now + valid_seconds),
        server=observation.server.value,
        traffic=traffic and _traffic_report(traffic),
        probe=probe
        and ProbeReport(
            variant=probe.variant,
            compute_milliseconds=decimal_text(probe.compute_milliseconds),
            age_seconds=decimal_text(probe.age_seconds),
        ),
        memory=memory
        and MemoryReport(
            limit_bytes=_known_bytes(memory.limit_bytes),
            working_set_bytes=_known_bytes(memory.working_set_bytes),
            node_available_bytes=_known_bytes(memory.node_available_bytes),
            age_seconds=decimal_text(memory.age_seconds),
        ),
    )


def observation_of(status: EndpointStatus, *, now: float) -> Observation:
    """What is known at ``now`` of the endpoint that reported ``status``; nothing at all is ``UNKNOWN``, not dead."""
    report = status.observation
    if report is None:
        return Observation(
            active_variant=status.active_variant,
            resident_variants=status.resident_variants,
            server=ServerState.UNKNOWN,
        )
    overdue = max(0.0, now - time_seconds(report.valid_until))
    traffic, probe, memory = report.traffic, report.probe, report.memory
    return Observation(
        active_variant=status.active_variant,
        resident_variants=status.resident_variants,
        server=ServerState(report.server),
        traffic=None if traffic is None else _traffic_window(traffic, overdue=overdue),
        probe=None if probe is None else _probe_result(probe, overdue=overdue),
        memory=None if memory is None else _memory_state(memory, overdue=overdue),
    )


def report_of_decision(decision: Decision, state: State, *, decided_by_agent: bool) -> DecisionReport:
    """The decision and what must be remembered for the next one."""
    return DecisionReport(
        action=decision.action.value,
        reason=decision.reason.value,
        message=decision.message[:1024],
        decided_by="Agent" if decided_by_agent else "Operator",
        objectives_met=decision.objectives_met,
        node_factor_percent=max(1, min(1_000_000, round(100 * state.compute_factor))),
        transport_milliseconds=decimal_text(state.transport_milliseconds),
        arrival_variability=decimal_text(state.arrival_variability),
        arrival_rate=None if state.arrival_rate is None else decimal_text(state.arrival_rate),
        last_switch_time=_time(state.last_switch_at),
        recent_switch_times=tuple(time_text(time) for time in state.recent_switches[-_REMEMBERED_SWITCHES:]),
        quarantined=tuple(
            QuarantineReport(
                variant=entry.variant, until=time_text(entry.until), failures=entry.failures, cause=entry.cause[:500]
            )
            for entry in state.quarantined[-16:]
        ),
        upgraded_variant=state.upgraded_variant,
        upgraded_time=_time(state.upgraded_at),
        upgrade_backoffs=tuple(
            UpgradeBackoffReport(variant=entry.variant, until=time_text(entry.until), bounces=entry.bounces)
            for entry in state.upgrade_backoffs[-16:]
        ),
    )


def state_of(report: DecisionReport | None) -> State:
    """What survives a restart; timers of a violation or a calm begin anew."""
    if report is None:
        return State()
    return State(
        compute_factor=report.node_factor_percent / 100,
        transport_milliseconds=float(report.transport_milliseconds),
        arrival_variability=float(report.arrival_variability),
        arrival_rate=None if report.arrival_rate is None else float(report.arrival_rate),
        last_switch_at=_seconds(report.last_switch_time),
        recent_switches=tuple(time_seconds(time) for time in report.recent_switch_times),
        quarantined=tuple(
            Quarantine(
                variant=entry.variant, until=time_seconds(entry.until), failures=entry.failures, cause=entry.cause
            )
            for entry in report.quarantined
        ),
        upgraded_variant=report.upgraded_variant,
        upgraded_at=_seconds(report.upgraded_time),
        upgrade_backoffs=tuple(
            UpgradeBackoff(variant=entry.variant, until=time_seconds(entry.until), bounces=entry.bounces)
            for entry in report.upgrade_backoffs
        ),
    )


def decimal_text(value: float) -> str:
    """``value`` as the resource holds numbers: at most six decimals, no exponent. Raises ValueError for NaN."""
    if math.isnan(value):
        raise ValueError("NaN is no measurement")
    bounded = min(max(value, -_LARGEST_DECIMAL), _LARGEST_DECIMAL)
    text = f"{bounded:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _traffic_report(traffic: TrafficWindow) -> TrafficReport:
    p95 = traffic.p95_milliseconds
    return TrafficReport(
        window_seconds=decimal_text(traffic.seconds),
        requests=traffic.requests,
        failures=traffic.failures,
        executions=traffic.executions,
        mean_compute_milliseconds=_mean(traffic.mean_compute_milliseconds),
        mean_queue_milliseconds=_mean(traffic.mean_queue_milliseconds),
        mean_total_milliseconds=_mean(traffic.mean_total_milliseconds),
        in_flight=_mean(traffic.in_flight),
        p95_milliseconds=decimal_text(p95) if p95 is not None and math.isfinite(p95) else None,
        age_seconds=decimal_text(traffic.age_seconds),
    )


def _traffic_window(report: TrafficReport, *, overdue: float) -> TrafficWindow:
    return TrafficWindow(
        seconds=float(report.window_seconds),
        requests=report.requests,
        failures=report.failures,
        executions=report.executions,
        mean_compute_milliseconds=float(report.mean_compute_milliseconds),
        mean_queue_milliseconds=float(report.mean_queue_milliseconds),
        mean_total_milliseconds=float(report.mean_total_milliseconds),
        in_flight=float(report.in_flight),
        age_seconds=float(report.age_seconds) + overdue,
        p95_milliseconds=None if report.p95_milliseconds is None else float(report.p95_milliseconds),
    )


def _probe_result(report: ProbeReport, *, overdue: float) -> ProbeResult:
    return ProbeResult(
        variant=report.variant,
        compute_milliseconds=float(report.compute_milliseconds),
        age_seconds=float(report.age_seconds) + overdue,
    )


def _memory_state(report: MemoryReport, *, overdue: float) -> MemoryState:
    return MemoryState(
        limit_bytes=report.limit_bytes,
        working_set_bytes=report.working_set_bytes,
        node_available_bytes=report.node_available_bytes,
        age_seconds=float(report.age_seconds) + overdue,
    )


def _bytes(value: int) -> int:
    return min(max(value, 0), _LARGEST_BYTES)


def _known_bytes(value: int | None) -> int | None:
    return None if value is None else _bytes(value)


def _mean(value: float) -> str:
    """A mean of nothing is 0 / 0; the window's zero requests say so already."""
    return decimal_text(value) if math.isfinite(value) else "0"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else time_text(seconds)


def _seconds(text: str | None) -> float | None:
    return None if text is None else time_seconds(text)
