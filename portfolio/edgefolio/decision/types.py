"""Inputs and outputs of a decision. All frozen; times are seconds of the caller's own clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# What is remembered has a file of its own, and is found here with the rest.
from edgefolio.decision.remembered import Computing as Computing
from edgefolio.decision.remembered import Descent as Descent
from edgefolio.decision.remembered import FittingVariant as FittingVariant
from edgefolio.decision.remembered import LatencyTest as LatencyTest
from edgefolio.decision.remembered import OwnFactor as OwnFactor
from edgefolio.decision.remembered import Quarantine as Quarantine
from edgefolio.decision.remembered import State as State
from edgefolio.decision.remembered import TrafficBefore as TrafficBefore
from edgefolio.decision.remembered import UpgradeBackoff as UpgradeBackoff

# So have splits.
from edgefolio.decision.split_figures import Fallback as Fallback
from edgefolio.decision.split_figures import SplitProfile as SplitProfile
from edgefolio.decision.split_figures import WorkerSet as WorkerSet


@dataclass(frozen=True, kw_only=True)
class VariantProfile:
    """The profile of a variant, as far as a decision needs it.

    Latencies are of one request batch on an idle node of this kind. Those of a split are the slowest worker's
    computing, without any network, and its memory is the largest shard's.
    """

    name: str
    rank: int
    accuracy_percent: float
    mean_milliseconds: float
    p95_milliseconds: float
    load_milliseconds: float
    memory_peak_bytes: int
    memory_steady_bytes: int
    #: ``None`` of a variant that one node serves by itself.
    split: SplitProfile | None = None


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The objectives of an endpoint, resolved from all levels; ``None`` is not asked."""

    latency_p95_milliseconds: float | None = None
    network_latency_milliseconds: float = 0.0
    min_accuracy_percent: float | None = None
    max_memory_bytes: int | None = None
    #: The variant that a user pinned.
    pinned_variant: str | None = None
    #: The pin is an order of the operator, which decides again: a standby is kept as for any choice.
    pin_is_order: bool = False
    #: An order in advance: from this p95 on, in percent of the objective, the ordered variant is left for the standby.
    descend_at_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Counter deltas of the active variant's version over a fraction of a second; means as in a window.

    ``pending`` is the number of requests that waited to be computed at its end; ``None`` is unknown.
    """

    seconds: float
    requests: int
    mean_compute_milliseconds: float
    mean_queue_milliseconds: float
    mean_total_milliseconds: float
    pending: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrafficWindow:
    """Counter deltas of the active variant's version over the window.

    ``requests`` are answered requests; ``mean_*`` are per request, in milliseconds; ``executions`` count model
    executions; ``in_flight`` is the mean number of requests inside the server over the window (Little's law).
    ``age_seconds`` is the age of the newest sample in it.
    """

    seconds: float
    requests: int
    failures: int
    executions: int
    mean_compute_milliseconds: float
    mean_queue_milliseconds: float
    mean_total_milliseconds: float
    in_flight: float
    age_seconds: float
    #: Measured p95 of the server (sliding window), when it has one. It confirms, it never decides alone.
    p95_milliseconds: float | None = None
    #: The newest part of the window, reading by reading, since the last observation; none from an agent of before.
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The agent's probe of a variant that has no traffic: a request of the profile's batch."""

    variant: str
    compute_milliseconds: float
    age_seconds: float
    #: Of a standby's probe: the active variant's time, asked in the same way just after it; ``None`` is unknown.
    beside_milliseconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryState:
    """Memory in bytes; ``None`` is unknown and bounds nothing.

    ``limit`` of the server (cgroup or what the user gave), its working set, and what the node has left.
    ``shared_memory`` is what one more version takes of it for requests, beside its profile.
    """

    limit_bytes: int | None
    working_set_bytes: int | None
    node_available_bytes: int | None
    age_seconds: float
    shared_memory_bytes: int | None = None


#: A node condition: the kubelet is about to evict pods because of their memory.
MEMORY_PRESSURE = "MemoryPressure"


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """Shortages of the endpoint's node, as the cluster reports them; an unknown figure changes nothing.

    ``others_cpu_percent`` is the share of the node's processors that others than this endpoint use. ``pressures``
    are the node's conditions that speak of a shortage: MemoryPressure, DiskPressure, PIDPressure.
    """

    others_cpu_percent: float | None = None
    pressures: tuple[str, ...] = ()
    #: Reserved for switches of other endpoints on the node, and not yet visible in what the node has left.
    reserved_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Signal:
    """The share of the last seconds for which something held, in percent, and how old that figure is."""

    percent: float
    age_seconds: float


@dataclass(frozen=True, kw_only=True)
class Contention:
    """Signs that others want the server's processors; what is absent cannot be read there, and changes nothing.

    ``throttled``: its control group was kept from running by its own limit; ``pressure``: something runnable in it
    waited for a processor; ``stolen``: the hypervisor ran another machine instead of this one.
    """

    throttled: Signal | None = None
    pressure: Signal | None = None
    stolen: Signal | None = None


class ServerState(StrEnum):
    """Whether the server answers inference. Its health endpoints say yes even when the model's process is dead."""

    SERVING = "Serving"
    DEAD = "Dead"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """An endpoint's measured state at one instant.

    ``active_variant`` answers unversioned requests (``None``: nothing serves yet); ``resident_variants`` are loaded,
    the active one among them; ``traffic`` is ``None`` when the counters could not be read, and has zero requests when
    the endpoint is idle.
    """

    active_variant: str | None
    resident_variants: tuple[str, ...]
    server: ServerState
    traffic: TrafficWindow | None = None
    probe: ProbeResult | None = None
    memory: MemoryState | None = None
    #: The agent's probe of the standby, which has no traffic of its own.
    standby_probe: ProbeResult | None = None
    #: ``None`` without cluster data: on one machine, and in an agent.
    node: NodeState | None = None
    #: ``None`` where nothing of it can be read: on another machine than the server, and in the operator.
    contention: Contention | None = None
    #: ``None`` where no set is formed or offered: then no split is a candidate.
    worker_set: WorkerSet | None = None


class Action(StrEnum):
    """Leave the endpoint as it is, or make it serve another variant."""

    HOLD = "Hold"
    SWITCH = "Switch"


class Reason(StrEnum):
    """Reason of a decision: one for every branch of the rules, also for each way to hold."""

    # Hold
    OBJECTIVES_MET = "ObjectivesMet"  # the active variant is right
    OBJECTIVES_NOT_MET = "ObjectivesNotMet"  # not met, and no other variant would be nearer to it
    MISSING_METRICS = "MissingMetrics"  # no counters, none that make sense, or no usable profile
    STALE_METRICS = "StaleMetrics"  # older than staleAfterSeconds
    SETTLING = "Settling"  # within settleSeconds of a switch
    VIOLATION_TOO_SHORT = "ViolationTooShort"  # not yet downAfterSeconds, or shown by too few requests
    CALM_TOO_SHORT = "CalmTooShort"  # a more accurate one fits, not yet for upAfterSeconds, or it bounced
    MIN_DWELL = "MinDwell"  # within minDwellSeconds of a switch
    SWITCH_BUDGET_SPENT = "SwitchBudgetSpent"  # maxSwitchesPerHour reached
    INSUFFICIENT_SWITCH_MEMORY = "InsufficientSwitchMemory"  # old and new do not fit at the same time
    PAUSED = "Paused"  # policy Paused
    RECOMMEND_ONLY = "RecommendOnly"  # policy Recommend; target is what would be taken
    PINNED = "Pinned"  # a person chose the variant
    ALL_QUARANTINED = "AllQuarantined"  # every other variant failed lately
    DEAD_BAND = "DeadBand"  # a more accurate one fits, but not with the margin
    NODE_BUSY = "NodeBusy"  # a more accurate one fits, but others use the node; nodeBusyPercent
    STANDBY_RELEASED = "StandbyReleased"  # memory is short: the standby is unloaded before the active one is given up
    PEERS_NOT_READY = "PeersNotReady"  # a split is due, but its set of workers is not complete, linked or known enough
    NO_TIME_TO_FALL_BACK = "NoTimeToFallBack"  # one node meets what is asked, a lost peer of the split would break it
    # Switch
    INITIAL = "Initial"  # nothing was served
    LATENCY_VIOLATED = "LatencyViolated"  # p95 outside the objective
    FAILURES = "Failures"  # most requests failed
    SATURATED = "Saturated"  # p95 outside the objective, and requests pile up
    MEMORY_EXCEEDED = "MemoryExceeded"  # more memory than the objective or the limit allows
    ACCURACY_BELOW_MINIMUM = "AccuracyBelowMinimum"  # an accurate enough one can be served
    MORE_ACCURATE_FITS = "MoreAccurateFits"  # for upAfterSeconds, with margin
    SERVER_DEAD = "ServerDead"  # inference is not answered; the variant is loaded anew
    UNKNOWN_ACTIVE_VARIANT = "UnknownActiveVariant"  # of another revision, or nobody's
    PEERS_LOST = "PeersLost"  # a split's peers did not answer for downAfterSeconds: a variant of one node serves
    FALLS_BACK_LATE = "FallsBackLate"  # one node has met what is asked for upAfterSeconds, a fallback would not


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one variant, and whether it may be taken.

    ``p95_milliseconds`` is ``None`` where the variant could not keep up (no p95 exists) or nothing is known;
    ``verdict`` is one clause for people.
    """

    variant: str
    p95_milliseconds: float | None
    utilization: float | None
    meets_latency: bool
    meets_accuracy: bool
    fits_memory: bool
    fits_memory_during_switch: bool
    quarantined: bool
    verdict: str
    #: What keeps a split out besides: its peers, or the time to fall back.
    barred: Reason | None = None


class StandbyReason(StrEnum):
    """Why a further variant stays resident beside the active one, or why none does."""

    RESIDENT = "Resident"  # it is loaded, and right
    LOAD = "Load"  # it is right, fits, and the endpoint is calm
    NOT_CALM = "NotCalm"  # loading would disturb: a violation, a switch, a busy node or missing metrics
    INSUFFICIENT_STANDBY_MEMORY = "InsufficientStandbyMemory"  # it does not fit beside the active one
    NOTHING_FASTER = "NothingFaster"  # no faster variant could be taken
    BESIDE_SHARD = "BesideShard"  # a split serves: what would stand by is loaded beside its shard, and counts once
    NOT_ASKED = "NotAsked"  # standby None, no latency objective, a pin, or the policy


@dataclass(frozen=True, kw_only=True)
class Standby:
    """The variant that is to be resident beside the one that serves; ``None``: none, and what is there is unloaded.

    ``is_scarce`` says that the node has room for one such load and not for two: a neighbour may want the same memory.
    """

    variant: str | None
    reason: StandbyReason
    message: str
    is_scarce: bool = False


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Hold or switch, with the reason and the evidence that was used.

    ``target`` is the variant to serve: of a switch, or, on hold, the one that is due but must wait
    (``None``: the active one is right). ``objectives_met`` speaks of the active variant; ``None`` is unknown.
    """

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
    #: What is to be resident beside the served variant once this is carried out; ``None``: leave it as it is.
    standby: Standby | None = None
    #: Which profile the predictions rest on, in one sentence; the caller knows, the rules do not.
    profile: str = ""
    #: What answers beside the shard of the split that serves, or is to; ``None`` of other variants.
    fallback: Fallback | None = None
    #: The accuracy of what was really answered in the window, fallback answers included; ``None`` if nothing serves.
    served_accuracy_percent: float | None = None
