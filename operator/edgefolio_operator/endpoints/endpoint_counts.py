"""Counts of a portfolio's endpoints, for its status. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.specification.conditions import readable_time
from edgefolio.specification.portfolio_status import EndpointCounts, VariantCount
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.kube.objects import Object, part_of

_MOST_COUNTED = 64


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts for the status; ``unknown`` endpoints did not report whether they meet their objectives, and ``silent``
    ones do not report at all any more; ``unknown_to_api`` of these have tokens of an account that is gone.
    """

    counts: EndpointCounts
    unknown: int
    silent: int
    unknown_to_api: int
    starting: int
    last_switch_at: float | None


def tally(endpoints: Sequence[Endpoint], *, account: Object | None = None, now: float) -> Tally:
    """Count the endpoints of one portfolio, whose agents have the service account ``account``."""
    counted = [endpoint for endpoint in endpoints if endpoint.counts(now=now)]
    met = [endpoint.objectives_met(now=now) for endpoint in counted]
    served = Counter(
        (endpoint.status.active_variant, endpoint.status.active_revision)
        for endpoint in counted
        if endpoint.available(now=now) and endpoint.status.active_revision is not None
    )
    by_variant = tuple(
        VariantCount(variant=str(variant), revision=int(revision or 0), count=count)
        for (variant, revision), count in sorted(served.items(), key=lambda item: (-item[1], str(item[0])))
    )
    switches = [
        endpoint.operator_time(endpoint.status.decision.last_switch_time, now=now)
        for endpoint in endpoints
        if endpoint.status.decision is not None and endpoint.status.decision.last_switch_time is not None
    ]
    silent = [endpoint for endpoint in counted if endpoint.silent(now=now)]
    # A token is bound to the account that it was made for, not to its name; a pod needs one to be created.
    made_at = readable_time(part_of(account or {}, "metadata", "creationTimestamp")) or 0.0
    return Tally(
        counts=EndpointCounts(
            summary=f"{met.count(True)}/{len(counted)}",
            total=len(counted),
            available=sum(endpoint.available(now=now) for endpoint in counted),
            meeting_objectives=met.count(True),
            by_variant=by_variant[:_MOST_COUNTED],
        ),
        unknown=met.count(None),
        silent=len(silent),
        unknown_to_api=sum(endpoint.surroundings.pod_created_at < made_at for endpoint in silent),
        starting=len(endpoints) - len(counted),
        last_switch_at=max(switches, default=None),
    )
