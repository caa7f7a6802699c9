"""How the endpoints of a portfolio are, in figures. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.specification.conditions import time_seconds
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import EndpointCounts, VariantCount
from edgefolio_operator.reconcilers.endpoint import Surroundings
from edgefolio_operator.revisions.rollout import Member

#: A pod this young that has never been Ready is starting, not broken.
STARTING_SECONDS = 300.0
#: An agent that is silent for this long after its report ran out is not known to serve.
SILENCE_SECONDS = 60.0
_MOST_COUNTED = 64


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint: where it is, what it was told before this cycle, what it says."""

    surroundings: Surroundings
    spec: EndpointSpecification | None
    status: EndpointStatus

    def counts(self, *, now: float) -> bool:
        """Whether it is asked to serve: its node is there, and its pod has had its time to start."""
        created = time_seconds(str(self.surroundings.pod["metadata"]["creationTimestamp"]))
        started = self.surroundings.pod_ready or now - created > STARTING_SECONDS
        return self.surroundings.node_ready and started

    def available(self, *, now: float) -> bool:
        """Whether it serves a verified variant, as far as is known."""
        report = self.status.observation
        return (
            self.surroundings.pod_ready
            and self.surroundings.node_ready
            and self.status.active_variant is not None
            and report is not None
            and report.server == "Serving"
            and now - time_seconds(report.valid_until) <= SILENCE_SECONDS
        )

    def objectives_met(self, *, now: float) -> bool | None:
        """Whether it meets what is asked of it; an endpoint that is not known to serve has said nothing."""
        decision = self.status.decision
        return decision.objectives_met if decision is not None and self.available(now=now) else None

    def member(self, *, now: float) -> Member:
        """How a rollout sees it."""
        failure = self.status.last_failure
        return Member(
            name=self.surroundings.pod_name,
            assigned=self.spec.revision.number if self.spec is not None and self.spec.revision is not None else None,
            active=self.status.active_revision,
            reachable=self.counts(now=now) and self.surroundings.pod_ready,
            objectives_met=self.objectives_met(now=now),
            failed_revision=failure.revision if failure is not None else None,
            failed_at=time_seconds(failure.time) if failure is not None else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Figures for the status; ``unknown`` endpoints did not say whether they meet their objectives."""

    counts: EndpointCounts
    unknown: int
    starting: int
    last_switch_time: str | None


def tally(endpoints: Sequence[Endpoint], *, now: float) -> Tally:
    """Count the endpoints of one portfolio."""
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
        endpoint.status.decision.last_switch_time
        for endpoint in endpoints
        if endpoint.status.decision is not None and endpoint.status.decision.last_switch_time is not None
    ]
    return Tally(
        counts=EndpointCounts(
            summary=f"{met.count(True)}/{len(counted)}",
            total=len(counted),
            available=sum(endpoint.available(now=now) for endpoint in counted),
            meeting_objectives=met.count(True),
            by_variant=by_variant[:_MOST_COUNTED],
        ),
        unknown=met.count(None),
        starting=len(endpoints) - len(counted),
        last_switch_time=max(switches, key=time_seconds, default=None),
    )
