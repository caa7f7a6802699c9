"""What a decision hands to the next one: the state and its parts. All frozen; times are of the caller's own clock."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """A variant that failed to load or to answer its probe, and until when it is not tried again."""

    variant: str
    until: float
    failures: int
    cause: str


@dataclass(frozen=True, kw_only=True)
class FittingVariant:
    """A variant more accurate than the active one that has been predicted to fit, without a break, since then."""

    variant: str
    since: float


@dataclass(frozen=True, kw_only=True)
class UpgradeBackoff:
    """A variant that had to be left soon after it was taken on the way up, and until when it is not taken again."""

    variant: str
    until: float
    bounces: int


@dataclass(frozen=True, kw_only=True)
class TrafficBefore:
    """Requests per second, mean number of requests in flight and utilization on the variant that a switch left."""

    arrival_rate: float
    in_flight: float
    utilization: float


@dataclass(frozen=True, kw_only=True)
class OwnFactor:
    """How much slower than its profile a variant computes here, against the other variants; 1 is what profiles say."""

    variant: str
    factor: float


@dataclass(frozen=True, kw_only=True)
class Descent:
    """A switch down to what was resident, and the variant that was left for it: something between may fit better."""

    variant: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What readings tell of computing now: the scatter of single requests, and evidence that it became faster.

    ``variability`` is a squared coefficient of variation, the mean over ``pairs`` of successive readings; ``last`` is
    the logarithm of the newest one's compute factor, of ``last_requests``. ``weighted_change`` and ``weight`` sum
    ``y / v`` and ``1 / v`` of ``y``, its distance from the smoothed factor, with ``readings`` far
    below it (:mod:`edgefolio.decision.estimates.computing`).
    """

    variability: float = 0.0
    pairs: float = 0.0
    last: float | None = None
    last_requests: float = 0.0
    weighted_change: float = 0.0
    weight: float = 0.0
    readings: int = 0


@dataclass(frozen=True, kw_only=True)
class LatencyTest:
    """The sequential test of a latency violation: its evidence so far, and the scatter that it expects of readings.

    ``weighted_level`` and ``weight`` sum ``y / v`` and ``1 / v`` (:mod:`edgefolio.decision.evidence`) over
    ``readings`` with ``requests``; ``squares`` are theirs around ``calm_level``, the mean ``ln p95`` in calm.
    ``scatter`` is the variance around it, of one request.
    Nothing has been answered for ``silent_seconds`` while requests waited, ``pending`` of them at the last reading.

    All of it speaks of an objective of ``budget`` milliseconds. ``known_level`` is the mean ``ln p95`` of the windows
    since the last switch, over the latest ``known_seconds``: what a changed objective is judged by, at once
    (``is_judged_anew``).
    """

    weighted_level: float = 0.0
    weight: float = 0.0
    readings: int = 0
    requests: float = 0.0
    squares: float = 0.0
    scatter: float = 0.25
    calm_level: float | None = None
    silent_seconds: float = 0.0
    pending: int = 0
    budget: float | None = None
    known_level: float = 0.0
    known_seconds: float = 0.0
    is_judged_anew: bool = False


@dataclass(frozen=True, kw_only=True)
class State:
    """State carried from one decision to the next; part of it survives restarts.

    Times are seconds since the epoch as the caller gives them in ``now``. A clock that jumps back is survived (times in
    the future are pulled to now); one that jumps forward breaks every "without a break" and so starts the timers anew.
    """

    compute_factor: float = 1.0
    transport_milliseconds: float = 0.0
    #: Squared coefficient of variation of the gaps between arrivals: 1 Poisson, 0 evenly paced, above 1 bursts.
    arrival_variability: float = 1.0
    factor_updated_at: float | None = None
    #: Arrival rate that was not censored, in requests per second: the highest lately, halved each factor half-life.
    arrival_rate: float | None = None
    #: When the server was last saturated: a queue soon after says nothing about the arrivals.
    saturated_at: float | None = None
    #: Rate and requests in flight on the variant before the last switch, until they are compared with those after it.
    before_switch: TrafficBefore | None = None
    #: Closed loop: the rate follows the variant's speed, as clients send the next request after the answer.
    closed_loop: bool = False
    #: When measurements that could be believed were last seen.
    observed_at: float | None = None
    violation_since: float | None = None
    #: Requests answered during the violation: its evidence.
    violation_requests: float = 0.0
    failing_since: float | None = None
    fitting: tuple[FittingVariant, ...] = ()
    last_switch_at: float | None = None
    recent_switches: tuple[float, ...] = ()
    quarantined: tuple[Quarantine, ...] = field(default=())
    #: The last variant taken on the way up, and when: leaving it soon is a bounce.
    upgraded_variant: str | None = None
    upgraded_at: float | None = None
    upgrade_backoffs: tuple[UpgradeBackoff, ...] = ()
    #: Since when nothing was violated, without a break.
    calm_since: float | None = None
    #: The largest compute factor met, halved towards the present one every six hours.
    slowest_factor: float = 1.0
    slowest_updated_at: float | None = None
    #: When a standby had to go for want of memory.
    standby_released_at: float | None = None
    descent: Descent | None = None
    latency_test: LatencyTest = LatencyTest()
    #: What was learned of single variants; :attr:`compute_factor` is that of the active one, its own part included.
    own_factors: tuple[OwnFactor, ...] = ()
    computing: Computing = Computing()
    #: Since when, without a break, a split has served whose peers do not answer ...
    peers_lost_since: float | None = None
    #: ... and since when one has served that one node could replace, and whose fallback would be late.
    late_fallback_since: float | None = None
