"""Memory reserved on nodes for switches under way, which other endpoints must not count on. Pure.

A switch that was ordered and not yet reported as done reserves its peak memory. Once it is done, samples show it,
except older ones: for them the promise stands a little longer. An endpoint that does not carry out its order
blocks its neighbours for some minutes only; each agent checks the real memory before it loads anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgefolio.contract.endpoint_report import profile_of
from edgefolio.decision.estimates.memory import needed_bytes
from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import RevisionStatus
from edgefolio_operator.ownership import PortfolioKey

#: Expiry of the reservation of an ordered switch that is not done.
PATIENCE_SECONDS = 300.0
#: A load is not aborted when the order changes: it may run for this long.
LOAD_SECONDS = 60.0
#: Longer than the staleness limit of any figure.
DONE_SECONDS = 300.0

#: Namespace and name of a ModelEndpoint.
EndpointKey = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Memory that one endpoint may take on its node: ordered at ``since``, seen to be done at ``done_at``."""

    endpoint: EndpointKey
    node: str
    revision: int
    variant: str
    peak_bytes: int
    since: float
    done_at: float | None = None

    def is_of(self, revision: int | None, variant: str | None) -> bool:
        """Whether it is for this variant."""
        return (self.revision, self.variant) == (revision, variant)


@dataclass(frozen=True, kw_only=True)
class Reservations:
    """Promises by endpoint, as one plan sees them."""

    promises: Mapping[EndpointKey, tuple[Promise, ...]] = field(default_factory=dict)
    #: Endpoints with promises, by node: looked up once per endpoint.
    holders: Mapping[str, frozenset[EndpointKey]] = field(default_factory=dict)

    @classmethod
    def of(cls, promises: Iterable[Promise]) -> Reservations:
        """These promises."""
        found: dict[EndpointKey, tuple[Promise, ...]] = {}
        holders: dict[str, frozenset[EndpointKey]] = {}
        for promise in promises:
            found[promise.endpoint] = (*found.get(promise.endpoint, ()), promise)
            holders[promise.node] = holders.get(promise.node, frozenset()) | {promise.endpoint}
        return cls(promises=found, holders=holders)

    def after(self, endpoint: EndpointKey, promises: tuple[Promise, ...]) -> Reservations:
        """With ``promises`` instead of the earlier ones of ``endpoint``."""
        before = self.promises.get(endpoint, ())
        if before == promises:
            return self
        others = {key: value for key, value in self.promises.items() if key != endpoint}
        holders = dict(self.holders)
        for promise in before:
            holders[promise.node] = holders[promise.node] - {endpoint}
        for promise in promises:
            holders[promise.node] = holders.get(promise.node, frozenset()) | {endpoint}
        return Reservations(promises={**others, endpoint: promises} if promises else others, holders=holders)

    def reserved_bytes(self, node: str, *, but_for: EndpointKey, seen_at: float, now: float) -> int:
        """Promises of others than ``but_for`` on ``node`` that a figure of ``seen_at`` cannot show."""
        return sum(
            _taken_bytes([each for each in self.promises[endpoint] if each.node == node], seen_at=seen_at, now=now)
            for endpoint in self.holders.get(node, frozenset())
            if endpoint != but_for
        )


class ReservationLedger:
    """The promises of all portfolios, updated portfolio by portfolio."""

    def __init__(self) -> None:
        self._by_portfolio: dict[PortfolioKey, tuple[Promise, ...]] = {}
        self._by_node: dict[str, dict[PortfolioKey, tuple[Promise, ...]]] = {}

    def __contains__(self, key: PortfolioKey) -> bool:
        return key in self._by_portfolio

    def record(self, key: PortfolioKey, promises: tuple[Promise, ...]) -> frozenset[str]:
        """Set the promises of a portfolio's endpoints; returns the nodes where that is a change."""
        before, after = _by_node(self._by_portfolio.get(key, ())), _by_node(promises)
        self._by_portfolio[key] = promises
        changed = frozenset(node for node in {*before, *after} if before.get(node) != after.get(node))
        for node in changed:
            if node in after:
                self._by_node.setdefault(node, {})[key] = after[node]
            else:
                self._by_node[node].pop(key)
                if not self._by_node[node]:
                    del self._by_node[node]
        return changed

    def remove(self, key: PortfolioKey) -> frozenset[str]:
        """Drop a deleted portfolio; returns the nodes where it held memory."""
        changed = self.record(key, ())
        del self._by_portfolio[key]
        return changed

    def reservations(self, key: PortfolioKey, *, nodes: Iterable[str]) -> Reservations:
        """Promises of the endpoints of ``key``, and of others on ``nodes``."""
        others = [
            promise
            for node in nodes
            for other, promises in self._by_node.get(node, {}).items()
            if other != key
            for promise in promises
        ]
        return Reservations.of([*self._by_portfolio.get(key, ()), *others])


def _by_node(promises: Iterable[Promise]) -> dict[str, tuple[Promise, ...]]:
    found: dict[str, tuple[Promise, ...]] = {}
    for promise in promises:
        found[promise.node] = (*found.get(promise.node, ()), promise)
    return found


def promises_of(
    endpoint: EndpointKey,
    *,
    spec: EndpointSpecification,
    status: EndpointStatus,
    revisions: Mapping[int, RevisionStatus],
    before: Sequence[Promise],
    now: float,
    clock_offset: float = 0.0,
    may_be_loading: int = 0,
    is_stored: bool = True,
) -> tuple[Promise, ...]:
    """The promises of ``endpoint`` under its order ``spec`` and its report ``status``.

    ``before`` are its promises of the last plan. After a restart there are none: then the reported time of the last
    switch bounds how long samples may not show it. Without ``is_stored`` the target is still to be written: the
    patience with an order does not begin before it can be read. ``clock_offset``: the agent's clock less ours.
    ``may_be_loading``: bytes of a load that an order may have begun which nobody remembers.
    """
    active = (status.active_revision, status.active_variant)
    told = target_of(spec)
    done = [promise for promise in before if promise.done_at is not None and now - promise.done_at <= DONE_SECONDS]
    under_way = next((promise for promise in before if promise.done_at is None), None)
    if under_way is not None and under_way.is_of(*active):
        done.append(replace(under_way, done_at=now))
        under_way = None
    told_time = status.decision.last_switch_time if status.decision is not None else None
    last = None if told_time is None else time_seconds(told_time) - clock_offset
    if not before and last is not None and now - last <= DONE_SECONDS:
        served = _promise(endpoint, spec, revisions, *active, now=now)
        # Its times are whole seconds.
        done += [replace(served, done_at=min(now, last + 1))] if served is not None else []
    wanted = _promise(endpoint, spec, revisions, *told, now=now) if told != active else None
    if under_way is None and may_be_loading:
        under_way = Promise(
            endpoint=endpoint, node=spec.node_name, revision=0, variant="", peak_bytes=may_be_loading, since=now
        )
    if under_way is not None:
        # The previous order's variant may still be loading.
        peak = under_way.peak_bytes if now - under_way.since <= LOAD_SECONDS else 0
        if wanted is not None:
            since = under_way.since if is_stored and under_way.is_of(*told) else now
            wanted = replace(wanted, since=since, peak_bytes=max(wanted.peak_bytes, peak))
        elif peak:
            wanted = under_way
    return (*done, wanted) if wanted is not None else tuple(done)


def largest_load(revisions: Iterable[RevisionStatus]) -> int:
    """Bytes that loading the largest variant of ``revisions`` needs."""
    return max((needed_bytes(profile_of(variant)) for each in revisions for variant in each.variants), default=0)


def target_of(spec: EndpointSpecification) -> tuple[int | None, str | None]:
    """Revision and variant that an endpoint is told to serve."""
    return spec.revision.number if spec.revision is not None else None, spec.target_variant


def _promise(
    endpoint: EndpointKey,
    spec: EndpointSpecification,
    revisions: Mapping[int, RevisionStatus],
    number: int | None,
    name: str | None,
    *,
    now: float,
) -> Promise | None:
    revision = revisions.get(number or 0)
    variant = next((entry for entry in (revision.variants if revision is not None else ()) if entry.name == name), None)
    if revision is None or variant is None:
        return None
    return Promise(
        endpoint=endpoint,
        node=spec.node_name,
        revision=revision.number,
        variant=variant.name,
        peak_bytes=needed_bytes(profile_of(variant)),
        since=now,
    )


def _taken_bytes(promises: Sequence[Promise], *, seen_at: float, now: float) -> int:
    """Memory of one endpoint: its largest completed load since, and the one under way."""
    loaded = [promise.peak_bytes for promise in promises if promise.done_at is not None and seen_at <= promise.done_at]
    loading = [
        promise.peak_bytes
        for promise in promises
        if promise.done_at is None and now - promise.since <= PATIENCE_SECONDS
    ]
    return max(loaded, default=0) + max(loading, default=0)
