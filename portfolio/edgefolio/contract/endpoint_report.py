"""Mapping of the decision's values to the ``status`` of a ModelEndpoint: the agent reports, the operator reads.

A status holds no floats and whole seconds, so values survive a round trip within a millisecond of
latency, a percent of the compute factor and a second of time; nothing in the core depends on more. An observation is
reported when it changes, and at the latest at ``validUntil``: until then no news means no change, and its ages stand
still; afterwards they grow, and the core holds because it is stale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgefolio.contract.status_mapper import StatusMapper, decimal_text
from edgefolio.decision.types import (
    Decision,
    Descent,
    MemoryState,
    Observation,
    OwnFactor,
    ProbeResult,
    Quarantine,
    ServerState,
    State,
    TrafficWindow,
    UpgradeBackoff,
    VariantProfile,
)
from edgefolio.manifest import Variant
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.endpoint import (
    DecisionReport,
    DescentReport,
    EndpointStatus,
    MemoryReport,
    ObservationReport,
    OwnFactorReport,
    ProbeReport,
    QuarantineReport,
    TrafficReport,
    UpgradeBackoffReport,
)
from edgefolio.specification.portfolio_status import LARGEST_BYTES, SplitStatus, VariantStatus

# A portfolio's status lists splits apart.
PROFILE = StatusMapper(VariantProfile, VariantStatus, unreported=("split",))
OBSERVATION = StatusMapper(
    Observation,
    ObservationReport,
    # The first two stand in the status itself; the node's state is known to the operator, not the agent; contention
    # changes within a second, and the agent alone acts as soon.
    unreported=("active_variant", "resident_variants", "node", "contention", "standby_probe", "worker_set"),
    parts=(
        # Readings are for the agent alone: a status is written every few seconds at the most.
        StatusMapper(TrafficWindow, TrafficReport, renamed={"seconds": "window_seconds"}, unreported=("readings",)),
        StatusMapper(ProbeResult, ProbeReport, unreported=("beside_milliseconds",)),
        StatusMapper(MemoryState, MemoryReport),
    ),
)
DECISION = StatusMapper(
    Decision,
    DecisionReport,
    # The evidence is for the node's log; the operator writes the target.
    unreported=(
        "target",
        "predictions",
        "compute_factor",
        "transport_milliseconds",
        "arrival_rate",
        "rate_is_censored",
        "standby",
        # The operator orders it, in spec.profile.
        "profile",
        "fallback",
        "served_accuracy_percent",
    ),
)
STATE = StatusMapper(
    State,
    DecisionReport,
    renamed={
        "compute_factor": "node_factor_percent",
        "last_switch_at": "last_switch_time",
        "recent_switches": "recent_switch_times",
        "upgraded_at": "upgraded_time",
    },
    # Violation and fit timers restart with each reader.
    unreported=(
        *("factor_updated_at", "saturated_at", "before_switch", "closed_loop", "observed_at"),
        *("violation_since", "violation_requests", "failing_since", "fitting", "calm_since"),
        *("peers_lost_since", "late_fallback_since"),
        # The agent alone keeps a standby.
        *("slowest_factor", "slowest_updated_at", "standby_released_at"),
        *("latency_test", "computing"),
    ),
    parts=(
        StatusMapper(Quarantine, QuarantineReport),
        StatusMapper(UpgradeBackoff, UpgradeBackoffReport),
        StatusMapper(Descent, DescentReport),
        StatusMapper(OwnFactor, OwnFactorReport, renamed={"factor": "percent"}),
    ),
)


def variant_status_of(profile: VariantProfile) -> VariantStatus:
    """The compact profile of a variant, as a portfolio's status and a Job's termination message hold it."""
    return PROFILE.report_of(profile)


def split_status_of(variant: Variant) -> SplitStatus:
    """The figures of a split, as a portfolio's status and a Job's termination message hold them."""
    split, profile = variant.split, variant.profiles[0]
    assert split is not None
    return SplitStatus(
        name=variant.name,
        rank=variant.rank,
        workers=split.workers,
        accuracy_percent=decimal_text(variant.test_accuracy.percent),
        predicted_milliseconds=decimal_text(split.predicted_milliseconds),
        received_bytes=min(split.bytes_into_busiest, LARGEST_BYTES),
        memory_bytes=max(profile.memory_peak_bytes, profile.memory_steady_bytes),
    )


def profile_of(variant: VariantStatus) -> VariantProfile:
    """The profile of a variant that a status holds."""
    return PROFILE.read(variant)


def report_of_observation(observation: Observation, *, now: float, valid_seconds: float) -> ObservationReport:
    """``observation`` of the instant ``now`` as a report that holds for ``valid_seconds``."""
    return ObservationReport(
        time=time_text(now), valid_until=time_text(now + valid_seconds), **OBSERVATION.written(observation)
    )


def observation_of(status: EndpointStatus, *, now: float) -> Observation:
    """The observation at ``now`` in ``status``; an endpoint that never reported is ``UNKNOWN``, not dead."""
    report = status.observation
    served: dict[str, Any] = {"active_variant": status.active_variant, "resident_variants": status.resident_variants}
    if report is None:
        return Observation(server=ServerState.UNKNOWN, **served)
    observation = OBSERVATION.read(report, **served)
    overdue = now - time_seconds(report.valid_until)
    return observation if overdue <= 0 else _aged(observation, overdue)


def report_of_decision(decision: Decision, state: State, *, decided_by_agent: bool) -> DecisionReport:
    """The decision and the state for the next one, as a report."""
    return DecisionReport(
        decided_by="Agent" if decided_by_agent else "Operator", **DECISION.written(decision), **STATE.written(state)
    )


def state_of(report: DecisionReport | None) -> State:
    """The state that survives a restart; violation and fit timers restart."""
    return State() if report is None else STATE.read(report)


def _aged(observation: Observation, seconds: float) -> Observation:
    """``observation`` with its ages increased by the age of the report."""

    def older(part: Any) -> Any:
        return part and replace(part, age_seconds=part.age_seconds + seconds)

    return replace(
        observation,
        traffic=older(observation.traffic),
        probe=older(observation.probe),
        memory=older(observation.memory),
    )
