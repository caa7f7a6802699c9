"""View models of portfolios and endpoints, built from the stored objects. Pure.

Unreadable fields count as absent, so that the rest is still shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgefolio.contract.endpoint_report import observation_of, profile_of
from edgefolio.contract.order_reason import OrderReason
from edgefolio.decision.estimates.compute_factor import measure
from edgefolio.decision.types import Action, Observation
from edgefolio.specification.conditions import Condition, time_seconds
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import PortfolioStatus, RevisionStatus, VariantStatus
from edgefolio.specification.validation.tolerant import understood

Object = Mapping[str, Any]
Model = TypeVar("Model", bound=BaseModel)

#: Conditions that are expected to be true; all others are expected to be false.
_GOOD_WHEN_TRUE = frozenset(
    {
        *("Ready", "ObjectivesMet", "ObjectivesAccepted", "Compatible", "NodeMetricsAvailable", "Synced"),
        *("SharedMemorySufficient", "RepositoryReadable", "ProfilesMeasured"),
        *("ReportsAccepted", "ClocksAgree", "OrdersAccepted"),
    }
)


@dataclass(frozen=True, kw_only=True)
class CurrentDecision:
    """The decision in force at an endpoint, and whether operator or agent made it."""

    action: Action
    reason: str
    message: str
    by: str
    target: str | None


@dataclass(frozen=True, kw_only=True)
class LastObservation:
    """The last observation of an endpoint.

    ``p95_milliseconds`` is the server's own where it has one, else (``p95_is_estimated``) the core's, from means.
    ``stale``: its renewal by the agent is overdue.
    """

    age_seconds: float
    stale: bool
    server: str
    p95_milliseconds: float | None
    p95_is_estimated: bool
    requests_per_second: float | None
    working_set_bytes: int | None
    memory_limit_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class EndpointView:
    """One ModelEndpoint."""

    name: str
    namespace: str
    portfolio: str
    spec: EndpointSpecification | None
    status: EndpointStatus
    told: OrderReason = field(default_factory=OrderReason)
    created: str | None = None

    @property
    def node(self) -> str | None:
        """Name of its node."""
        return None if self.spec is None else self.spec.node_name

    @property
    def target(self) -> str | None:
        """The variant that the operator wants."""
        return None if self.spec is None else self.spec.target_variant

    @property
    def revision(self) -> int | None:
        """Number of the revision that the operator wants."""
        return None if self.spec is None or self.spec.revision is None else self.spec.revision.number

    @property
    def autonomous(self) -> bool:
        """Whether the agent is cut off and decides alone."""
        return any(entry.type == "Autonomous" and entry.status == "True" for entry in self.status.conditions)

    @property
    def paused(self) -> bool:
        """Whether switching is paused."""
        return self.spec is not None and self.spec.switching.policy == "Paused"

    @property
    def pinned(self) -> bool:
        """Whether a person chose the variant."""
        return self.spec is not None and self.spec.pinned

    @property
    def current_decision(self) -> CurrentDecision | None:
        """The decision in force: the agent's while it is cut off, else the operator's."""
        decision, spec = self.status.decision, self.spec
        if decision is not None and (self.autonomous or decision.decided_by == "Agent"):
            return CurrentDecision(
                action=Action(decision.action),
                reason=decision.reason,
                message=decision.message,
                by="Agent",
                target=self.status.active_variant,
            )
        if spec is None or self.told.reason is None:
            return None
        moves = spec.target_variant is not None and (
            spec.target_variant != self.status.active_variant or self.revision != self.status.active_revision
        )
        return CurrentDecision(
            action=Action.SWITCH if moves else Action.HOLD,
            reason=self.told.reason,
            message=self.told.message,
            by="Operator",
            target=spec.target_variant,
        )

    def observation(self, *, now: float) -> Observation:
        """Its observation for the core, limited to the revision that it is to serve."""
        found = observation_of(self.status, now=now)
        if self.status.active_revision == self.revision:
            return found
        return Observation(
            active_variant=None,
            resident_variants=(),
            server=found.server,
            memory=found.memory,
        )

    def last_observation(self, variants: Sequence[VariantStatus], *, now: float) -> LastObservation | None:
        """The last observation; ``variants`` are those of the revision that it is to serve."""
        report = self.status.observation
        if report is None:
            return None
        traffic = report.traffic
        p95 = None if traffic is None or traffic.p95_milliseconds is None else float(traffic.p95_milliseconds)
        estimated = self._estimated_p95(variants, now=now) if p95 is None else None
        window = 0.0 if traffic is None else float(traffic.window_seconds)
        return LastObservation(
            age_seconds=max(0.0, now - time_seconds(report.time)),
            stale=now > time_seconds(report.valid_until),
            server=report.server,
            p95_milliseconds=estimated if p95 is None else p95,
            p95_is_estimated=estimated is not None,
            requests_per_second=None if traffic is None or window <= 0 else traffic.requests / window,
            working_set_bytes=None if report.memory is None else report.memory.working_set_bytes,
            memory_limit_bytes=None if report.memory is None else report.memory.limit_bytes,
        )

    def _estimated_p95(self, variants: Sequence[VariantStatus], *, now: float) -> float | None:
        observation = self.observation(now=now)
        active = next((entry for entry in variants if entry.name == observation.active_variant), None)
        if observation.traffic is None or active is None:
            return None
        found = measure(observation.traffic, profile_of(active))
        return None if found is None else found.p95_milliseconds


@dataclass(frozen=True, kw_only=True)
class PortfolioView:
    """One ModelPortfolio with its endpoints by name; ``exists`` is false where only endpoints are left."""

    name: str
    namespace: str
    spec: Object
    status: PortfolioStatus
    endpoints: tuple[EndpointView, ...]
    generation: int = 0
    exists: bool = True

    def condition(self, kind: str) -> Condition | None:
        """The condition ``kind``."""
        return next((entry for entry in self.status.conditions if entry.type == kind), None)

    @property
    def outdated(self) -> bool:
        """Whether the status is of an older generation than the spec."""
        return self.status.observed_generation != self.generation

    @property
    def notable(self) -> tuple[Condition, ...]:
        """Unexpected conditions besides Ready."""
        return tuple(entry for entry in self.status.conditions if entry.type != "Ready" and not is_expected(entry))

    def revision(self, number: int | None) -> RevisionStatus | None:
        """The revision ``number``, if it is kept."""
        return next((entry for entry in self.status.revisions if entry.number == number), None)

    def serving(self, variant: str, revision: int) -> int:
        """Number of endpoints that report serving the variant."""
        return sum(
            entry.status.active_variant == variant and entry.status.active_revision == revision
            for entry in self.endpoints
        )


def is_expected(condition: Condition) -> bool:
    """Whether a condition holds its normal value."""
    if condition.type == "StandbyResident":
        # Most reasons to have none are as they should be.
        return condition.reason != "InsufficientStandbyMemory"
    if condition.type in _GOOD_WHEN_TRUE:
        return condition.status == "True" or (condition.status == "Unknown" and not condition.message)
    return condition.status == "False"


def portfolio_views(portfolios: Iterable[Object], endpoints: Iterable[Object]) -> tuple[PortfolioView, ...]:
    """Portfolios by namespace and name, each with its endpoints; endpoints without portfolio come under its name."""
    found: dict[tuple[str, str], list[EndpointView]] = {}
    for document in endpoints:
        view = endpoint_view(document)
        found.setdefault((view.namespace, view.portfolio), []).append(view)
    views = []
    for document in portfolios:
        metadata = document["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        views.append(
            PortfolioView(
                name=key[1],
                namespace=key[0],
                spec=document.get("spec") or {},
                status=_parsed(PortfolioStatus, document.get("status")) or PortfolioStatus(),
                endpoints=_ordered(found.pop(key, ())),
                generation=int(metadata.get("generation", 0)),
            )
        )
    for (namespace, name), left in found.items():
        views.append(
            PortfolioView(
                name=name,
                namespace=namespace,
                spec={},
                status=PortfolioStatus(),
                endpoints=_ordered(left),
                exists=False,
            )
        )
    return tuple(sorted(views, key=lambda view: (view.namespace, view.name)))


def endpoint_view(document: Object) -> EndpointView:
    """One ModelEndpoint as the API server holds it."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    parsed = _parsed(EndpointSpecification, spec)
    return EndpointView(
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace", "")),
        portfolio=str((spec.get("portfolioRef") or {}).get("name", "")),
        spec=parsed,
        told=OrderReason.of(metadata, parsed),
        status=_parsed(EndpointStatus, document.get("status")) or EndpointStatus(),
        created=metadata.get("creationTimestamp"),
    )


def _ordered(endpoints: Iterable[EndpointView]) -> tuple[EndpointView, ...]:
    return tuple(sorted(endpoints, key=lambda endpoint: (endpoint.node or "", endpoint.name)))


def _parsed(model: type[Model], document: Any) -> Model | None:
    if not document:
        return None
    try:
        return understood(model, document)
    except ValidationError:
        return None
