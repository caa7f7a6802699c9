"""All endpoints of one portfolio, one after another: each sees what those before it were promised. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from edgefolio.decision.types import State
from edgefolio.specification.portfolio_status import RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.cluster_state.resource_usage import Usage
from edgefolio_operator.endpoints.endpoint_counts import Endpoint
from edgefolio_operator.endpoints.memory_reservations import EndpointKey, Promise, Reservations, promises_of
from edgefolio_operator.endpoints.observation import ClusterView
from edgefolio_operator.reconcilers.endpoint import Kept, keep


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the cluster says beside the objects: usage, and what endpoints were promised in the cycles before."""

    usage: Usage = field(default_factory=Usage)
    stale_after: float = 60.0
    reservations: Reservations = field(default_factory=Reservations)


def decide_all(
    portfolio: ModelPortfolio,
    members: Sequence[Endpoint],
    *,
    revisions: Sequence[RevisionStatus],
    assignments: Mapping[str, int],
    states: Mapping[str, State],
    sight: Sight,
    epoch: int,
    now: float,
) -> tuple[list[Kept], tuple[Promise, ...]]:
    """What each endpoint is told, and what it is promised by that; ``assignments`` are revisions by pod."""
    by_number = {entry.number: entry for entry in revisions}
    namespace = portfolio.metadata.namespace or ""
    reservations = sight.reservations
    kept: list[Kept] = []
    promises: list[Promise] = []
    for endpoint in members:
        surroundings = endpoint.surroundings
        key = (namespace, surroundings.pod_name)
        decided = keep(
            portfolio,
            surroundings,
            view=ClusterView(
                node=surroundings.node,
                node_sample=(sight.usage.nodes or {}).get(surroundings.node_name),
                pod_sample=sight.usage.pods.get(key),
                stale_after=sight.stale_after,
                reserved=partial(_reserved, reservations, surroundings.node_name, key, now),
            ),
            revision=by_number.get(assignments.get(surroundings.pod_name, 0)),
            current=endpoint.spec,
            status=endpoint.status,
            memory=states.get(surroundings.pod_name),
            epoch=epoch,
            now=now,
        )
        own = promises_of(
            key,
            spec=decided.spec,
            status=endpoint.status,
            revisions=by_number,
            before=sight.reservations.promises.get(key, ()),
            now=now,
        )
        reservations = reservations.after(key, own)
        kept.append(decided)
        promises += own
    return kept, tuple(promises)


def standing_promises(
    namespace: str,
    members: Sequence[Endpoint],
    *,
    revisions: Sequence[RevisionStatus],
    now: float,
) -> tuple[Promise, ...]:
    """What the endpoints of a portfolio hold before it is looked at for the first time, as after a restart."""
    by_number = {entry.number: entry for entry in revisions}
    return tuple(
        promise
        for endpoint in members
        if endpoint.spec is not None
        for promise in promises_of(
            (namespace, endpoint.surroundings.pod_name),
            spec=endpoint.spec,
            status=endpoint.status,
            revisions=by_number,
            before=(),
            now=now,
        )
    )


def _reserved(reservations: Reservations, node: str, key: EndpointKey, now: float, seen_at: float) -> int:
    return reservations.reserved_bytes(node, but_for=key, seen_at=seen_at, now=now)
