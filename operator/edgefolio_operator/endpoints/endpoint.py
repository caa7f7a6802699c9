"""One endpoint in the API server: its pod and node, spec and status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgefolio.contract.order_reason import OrderReason
from edgefolio.specification.conditions import readable_time, time_seconds
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio_operator.cluster_state.report_clocks import Hearing
from edgefolio_operator.endpoints.objectives import Level
from edgefolio_operator.kube.objects import Object, annotations_of, has_condition
from edgefolio_operator.revisions.wave import Member

#: A pod this young that has never been Ready is starting, not broken.
STARTING_SECONDS = 300.0
#: Grace period of an expired report; then the endpoint is unknown.
SILENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Pod, node and namespace of an endpoint; unreadable ones are ``None``.

    Times of a pod are of the API server's clock, which is ``api_clock_offset`` ahead of ours.
    """

    pod: Object
    node: Object | None = None
    namespace: Object | None = None
    api_clock_offset: float = 0.0

    @property
    def pod_name(self) -> str:
        """Name of the pod, and of its endpoint."""
        return str(self.pod["metadata"]["name"])

    @property
    def pod_created_at(self) -> float:
        """When the pod was created, on the API server's clock; 0 if that cannot be read."""
        return readable_time(self.pod["metadata"].get("creationTimestamp")) or 0.0

    @property
    def node_name(self) -> str:
        """Name of the node."""
        return str(self.pod["spec"]["nodeName"])

    @property
    def pod_ready(self) -> bool:
        """Whether the pod is Ready."""
        return has_condition(self.pod, "Ready")

    @property
    def node_ready(self) -> bool:
        """Whether the node is Ready; true where nodes may not be read."""
        return self.node is None or has_condition(self.node, "Ready")

    @property
    def annotations(self) -> tuple[tuple[Level, Mapping[str, str]], ...]:
        """Annotations of the pod and of its node, nearest first."""
        return (Level.POD, annotations_of(self.pod)), (Level.NODE, annotations_of(self.node))


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint: its surroundings, its stored spec, its status.

    ``spec`` is without its reason, which is ``told``. ``generation`` is that of the stored spec; ``None`` if it is not
    known. ``unreadable`` names the parts of its status
    that were left out. ``hearing`` is what is known of its agent's clock: times in the status are of that one, and only
    :meth:`agent_time` may be compared with them.
    """

    surroundings: Surroundings
    spec: EndpointSpecification | None
    status: EndpointStatus
    generation: int | None = None
    told: OrderReason = field(default_factory=OrderReason)
    unreadable: tuple[str, ...] = ()
    hearing: Hearing = field(default_factory=Hearing)

    @property
    def may_load_other(self) -> bool:
        """Whether a load of an order before the stored one may be under way.

        An agent reports between two loads: once it has acknowledged an order, it loads nothing of an earlier one.
        """
        if self.spec is None:
            return False
        if self.generation is not None:
            return self.status.observed_generation < self.generation
        ordered = self.spec.revision.number if self.spec.revision is not None else None
        return (ordered, self.spec.target_variant) != (self.status.active_revision, self.status.active_variant)

    def agent_time(self, now: float) -> float:
        """The time on the agent's clock when it is ``now`` on the operator's."""
        return now + self.hearing.clock_offset

    def operator_time(self, text: str, *, now: float) -> float:
        """The time on the operator's clock of an instant that the agent wrote; never in the future."""
        return min(now, time_seconds(text) - self.hearing.clock_offset)

    def counts(self, *, now: float) -> bool:
        """Whether it is expected to serve: its node is Ready, and its pod has had its time to start."""
        age = now + self.surroundings.api_clock_offset - self.surroundings.pod_created_at
        started = self.surroundings.pod_ready or age > STARTING_SECONDS
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
            and self.agent_time(now) - time_seconds(report.valid_until) <= SILENCE_SECONDS
        )

    def silent(self, *, now: float) -> bool:
        """Whether its agent is no longer heard although its pod is Ready: it may serve on, and nobody knows what."""
        report = self.status.observation
        return (
            self.surroundings.pod_ready
            and self.surroundings.node_ready
            and report is not None
            and self.agent_time(now) - time_seconds(report.valid_until) > SILENCE_SECONDS
        )

    def objectives_met(self, *, now: float) -> bool | None:
        """Whether it meets its objectives; ``None`` while it is not known to serve, or its report has run out."""
        decision, report = self.status.decision, self.status.observation
        if decision is None or report is None or not self.available(now=now):
            return None
        return decision.objectives_met if self.agent_time(now) <= time_seconds(report.valid_until) else None

    def member(self, *, now: float) -> Member:
        """The endpoint as a rollout member."""
        failure = self.status.last_failure
        return Member(
            name=self.surroundings.pod_name,
            assigned=self.spec.revision.number if self.spec is not None and self.spec.revision is not None else None,
            active=self.status.active_revision,
            reachable=self.counts(now=now) and self.surroundings.pod_ready,
            objectives_met=self.objectives_met(now=now),
            failed_revision=failure.revision if failure is not None else None,
            failure_reason=failure.reason if failure is not None else "",
            failed_at=0.0 if failure is None else self._failed_at(failure.time, now=now),
        )

    def _failed_at(self, told_time: str, *, now: float) -> float:
        """When the operator heard of the last failure; else the agent's own time of it, on our clock."""
        heard_at = self.hearing.failed_at
        return self.operator_time(told_time, now=now) if heard_at is None else heard_at
