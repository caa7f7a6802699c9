"""Snapshot of one portfolio and its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgefolio.contract.job_report import ProgressLine
from edgefolio_operator.cluster_state.report_clocks import Hearing
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.ownership import PortfolioKey


@dataclass(frozen=True, kw_only=True)
class PortfolioSnapshot:
    """A portfolio and all objects that its reconciliation reads.

    ``nodes`` are those of its pods, ``None`` where they may not be read. ``hearings``, by endpoint, say what is known
    of its agent's clock, ``api_clock_offset`` how far the API server's is ahead of ours. ``lost_pods`` are pods that it
    selects and an older portfolio has, with that one; ``occupied_pods`` are those whose endpoint is still another
    portfolio's. ``repository_owner`` is the older portfolio that makes into this one's repository.
    """

    portfolio: Object
    jobs: Sequence[Object] = ()
    job_pods: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    nodes: Mapping[str, Object] | None = None
    namespace: Object | None = None
    endpoints: Sequence[Object] = ()
    hearings: Mapping[str, Hearing] = field(default_factory=dict)
    daemon_set: Object | None = None
    service: Object | None = None
    server_version: ServerVersion = field(default_factory=ServerVersion)
    progress: Mapping[str, ProgressLine] = field(default_factory=dict)
    lost_pods: Mapping[str, PortfolioKey] = field(default_factory=dict)
    occupied_pods: frozenset[str] = frozenset()
    repository_owner: PortfolioKey | None = None
    api_clock_offset: float = 0.0

    @property
    def namespace_is_ending(self) -> bool:
        """Whether the portfolio's namespace is being deleted, as far as may be read."""
        return bool((self.namespace or {}).get("metadata", {}).get("deletionTimestamp"))
