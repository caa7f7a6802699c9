"""The values that go into a decision and come out of it. All frozen; times are seconds of the caller's own clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class VariantProfile:
    """What the core must know of a variant. Latencies are of one request batch on an idle node of this kind."""

    name: str
    rank: int
    accuracy_percent: float
    mean_milliseconds: float
    p95_milliseconds: float
    load_milliseconds: float
    memory_peak_bytes: int
    memory_steady_bytes: int


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What is asked of the endpoint, resolved from all levels; ``None`` is not asked."""

    latency_p95_milliseconds: float | None = None
    network_latency_milliseconds: float = 0.0
    min_accuracy_percent: float | None = None
    max_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrafficWindow:
    """Deltas of Triton's per-version counters over the last seconds, for the active variant alone.

    ``requests`` are answered requests; ``mean_*`` are per request, in milliseconds; ``executions`` count model
    executions; ``in_flight`` is the mean number of requests inside the server over the window (Little's law); ``batch``
    is the mean number of samples per request. ``age_seconds`` is the age of the newest sample in it.
    """

    seconds: float
    requests: int
    failures: int
    executions: int
    mean_compute_milliseconds: float
    mean_queue_milliseconds: float
    mean_total_milliseconds: float
    in_flight: float
    batch: float
    age_seconds: float
    #: Measured p95 of the server (sliding window), when it has one. It confirms, it never decides alone.
    p95_milliseconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The agent's own request to the active variant while there is no traffic."""

    variant: str
    compute_milliseconds: float
    age_seconds: float


@dataclass(frozen=True, kw_only=True)
class MemoryState:
    """Memory in bytes; ``None`` is unknown. ``limit`` of the server (cgroup or what the user gave), its working set,
    and what the node has left."""

    limit_bytes: int | None
    working_set_bytes: int | None
    node_available_bytes: int | None
    age_seconds: float


class ServerState(StrEnum):
    """What inference says of the server (its own health endpoints lie when the stub is dead)."""

    SERVING = "Serving"
    DEAD = "Dead"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known about an endpoint at one instant."""

    active_variant: str | None
    resident_variants: tuple[str, ...]
    server: ServerState
    traffic: TrafficWindow | None = None
    probe: ProbeResult | None = None
    memory: MemoryState | None = None


class Action(StrEnum):
    """Leave the endpoint as it is, or make it serve another variant."""

    HOLD = "Hold"
    SWITCH = "Switch"


class Reason(StrEnum):
    """Why. One for every branch of the core, also for each way to do nothing."""

    # Hold
    OBJECTIVES_MET = "ObjectivesMet"
    OBJECTIVES_NOT_MET = "ObjectivesNotMet"
    MISSING_METRICS = "MissingMetrics"
    STALE_METRICS = "StaleMetrics"
    SETTLING = "Settling"
    VIOLATION_TOO_SHORT = "ViolationTooShort"
    CALM_TOO_SHORT = "CalmTooShort"
    MIN_DWELL = "MinDwell"
    SWITCH_BUDGET_SPENT = "SwitchBudgetSpent"
    INSUFFICIENT_SWITCH_MEMORY = "InsufficientSwitchMemory"
    PAUSED = "Paused"
    RECOMMEND_ONLY = "RecommendOnly"
    PINNED = "Pinned"
    ALL_QUARANTINED = "AllQuarantined"
    DEAD_BAND = "DeadBand"
    # Switch
    INITIAL = "Initial"
    LATENCY_VIOLATED = "LatencyViolated"
    FAILURES = "Failures"
    SATURATED = "Saturated"
    MEMORY_EXCEEDED = "MemoryExceeded"
    ACCURACY_BELOW_MINIMUM = "AccuracyBelowMinimum"
    MORE_ACCURATE_FITS = "MoreAccurateFits"
    SERVER_DEAD = "ServerDead"
    UNKNOWN_ACTIVE_VARIANT = "UnknownActiveVariant"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the core expects of one variant now, and whether it may be taken."""

    variant: str
    p95_milliseconds: float | None
    utilization: float | None
    meets_latency: bool
    meets_accuracy: bool
    fits_memory: bool
    fits_memory_during_switch: bool
    quarantined: bool
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Hold or switch, with the reason and the evidence that was used."""

    action: Action
    reason: Reason
    target: str | None
    message: str
    objectives_met: bool | None
    predictions: tuple[Prediction, ...] = ()
    compute_factor: float | None = None
    transport_milliseconds: float | None = None
    arrival_rate: float | None = None
    rate_is_censored: bool = False


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """A variant that failed to load or to answer its probe, and until when it is not tried again."""

    variant: str
    until: float
    failures: int
    cause: str


@dataclass(frozen=True, kw_only=True)
class State:
    """What must survive a restart, and what the core remembers between two cycles.

    Times are seconds since the epoch as the caller gives them in ``now``; a clock that jumps back is survived (ages are
    clamped to zero), one that jumps forward costs at most one early decision.
    """

    compute_factor: float = 1.0
    transport_milliseconds: float = 0.0
    factor_updated_at: float | None = None
    violation_since: float | None = None
    fits_since: float | None = None
    fitting_variant: str | None = None
    last_switch_at: float | None = None
    recent_switches: tuple[float, ...] = ()
    quarantined: tuple[Quarantine, ...] = field(default=())
    #: Highest arrival rate seen lately that was not censored, in requests per second.
    arrival_rate: float | None = None
