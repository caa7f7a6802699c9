"""Plan of one reconciliation: its writes and the state to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgefolio.decision.types import Decision, State
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio_operator.endpoints.memory_reservations import Promise
from edgefolio_operator.kube.event_recorder import Event
from edgefolio_operator.kube.objects import Document


@dataclass(frozen=True, kw_only=True)
class ReconcilePlan:
    """The writes of one reconciliation, and the state for the portfolio's next one.

    ``states`` and ``decisions`` are by endpoint; ``promises`` are all that its endpoints hold. ``suspects`` are uids of
    objects that are stuck: the next plan wants to know what Kubernetes says of them.
    """

    status: PortfolioStatus
    apply: tuple[Document, ...] = ()
    delete_jobs: tuple[str, ...] = ()
    delete_daemon_set: str | None = None
    delete_endpoints: tuple[str, ...] = ()
    suspend_job: tuple[str, bool] | None = None
    finalizer: bool | None = None
    events: tuple[Event, ...] = ()
    states: Mapping[str, State] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    promises: tuple[Promise, ...] = ()
    suspects: tuple[str, ...] = ()
