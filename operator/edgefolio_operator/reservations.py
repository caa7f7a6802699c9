"""Memory that switches were promised on a node: what one endpoint was told to load, another must not count on. Pure.

A switch that was told and not yet reported as done takes its peak memory. Once it is done the figures show it, those
that were taken before excepted: for them the promise stands a little longer. An endpoint that does not come to do what
it was told blocks its neighbours for some minutes only; each agent looks at the real memory before it loads anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from edgefolio.decision.memory import needed_bytes
from edgefolio.endpoint_report import profile_of
from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import RevisionStatus

#: A switch that was told so long ago and is still not done reserves nothing any more.
PATIENCE_SECONDS = 300.0
#: A load that has begun is not broken off when the order changes: so long it may still be under way.
LOAD_SECONDS = 60.0
#: Longer than any figure is believed: no figure is older than that.
DONE_SECONDS = 300.0

#: Namespace and name of a ModelEndpoint.
EndpointKey = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What one endpoint may take on its node; ``since`` it was told, done at ``done_at``."""

    endpoint: EndpointKey
    node: str
    revision: int
    variant: str
    peak_bytes: int
    since: float
    done_at: float | None = None

    def counts(self, *, seen_at: float, now: float) -> bool:
        """Whether a figure that was taken at ``seen_at`` cannot show it yet."""
        if self.done_at is not None:
            return seen_at <= self.done_at
        return now - self.since <= PATIENCE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Reservations:
    """All promises that are known, of all portfolios."""

    promises: Mapping[EndpointKey, Promise] = field(default_factory=dict)

    @classmethod
    def of(cls, promises: Iterable[Promise]) -> Reservations:
        """These promises; of two for one endpoint the last."""
        return cls(promises={promise.endpoint: promise for promise in promises})

    def after(self, endpoint: EndpointKey, promise: Promise | None) -> Reservations:
        """With ``promise`` in the place of what ``endpoint`` was promised before."""
        if self.promises.get(endpoint) == promise:
            return self
        others = {key: value for key, value in self.promises.items() if key != endpoint}
        return Reservations(promises=others if promise is None else {**others, endpoint: promise})

    def reserved_bytes(self, node: str, *, but_for: EndpointKey, seen_at: float, now: float) -> int:
        """What others than ``but_for`` were promised on ``node`` and a figure of ``seen_at`` cannot show."""
        return sum(
            promise.peak_bytes
            for promise in self.promises.values()
            if promise.node == node and promise.endpoint != but_for and promise.counts(seen_at=seen_at, now=now)
        )


def promise_of(
    endpoint: EndpointKey,
    *,
    spec: EndpointSpecification,
    status: EndpointStatus,
    revision: RevisionStatus | None,
    before: Promise | None,
    now: float,
) -> Promise | None:
    """What ``endpoint`` is promised while ``spec`` is what it is told and ``status`` what it says.

    ``revision`` is the one that ``spec`` names, ``before`` the promise of the cycle before. After a restart there is
    none: then what the endpoint says of its last switch tells how long figures may not show it.
    """
    variants = revision.variants if revision is not None else ()
    variant = next((entry for entry in variants if entry.name == spec.target_variant), None)
    if revision is None or variant is None:
        return None
    instances = status.observation.instances if status.observation is not None else 1
    promise = Promise(
        endpoint=endpoint,
        node=spec.node_name,
        revision=revision.number,
        variant=variant.name,
        peak_bytes=instances * needed_bytes(profile_of(variant)),
        since=now,
    )
    serves = (status.active_revision, status.active_variant) == (revision.number, variant.name)
    if before is not None and (before.revision, before.variant) != (promise.revision, promise.variant):
        if before.done_at is None and now - before.since <= LOAD_SECONDS:
            return before if serves else replace(promise, peak_bytes=max(promise.peak_bytes, before.peak_bytes))
        before = None
    if not serves:
        return promise if before is None or before.done_at is not None else replace(promise, since=before.since)
    done_at = _done_at(before, status, now=now)
    return None if done_at is None or now - done_at > DONE_SECONDS else replace(promise, done_at=done_at)


def _done_at(before: Promise | None, status: EndpointStatus, *, now: float) -> float | None:
    if before is not None:
        return before.done_at if before.done_at is not None else now
    last = status.decision.last_switch_time if status.decision is not None else None
    # Its times are whole seconds.
    return None if last is None else min(now, time_seconds(last) + 1)
