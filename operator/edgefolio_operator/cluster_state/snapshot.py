"""Snapshot of one portfolio and its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgefolio.contract.job_report import ProgressLine
from edgefolio_operator import labels
from edgefolio_operator.cluster_state.report_clocks import Hearing
from edgefolio_operator.cluster_state.warning_events import ObjectWarning
from edgefolio_operator.kube.objects import Object, controller_of, is_controlled_by, part_of
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.ownership import PortfolioKey


@dataclass(frozen=True, kw_only=True)
class PortfolioSnapshot:
    """A portfolio and all objects that its reconciliation reads.

    ``nodes`` are those of its pods, ``None`` where they may not be read. ``hearings``, by endpoint, say what is known
    of its agent's clock, ``api_clock_offset`` how far the API server's is ahead of ours. ``lost_pods`` are pods that it
    selects and an older portfolio has, with that one; ``occupied_pods`` are those whose endpoint is still another
    portfolio's. ``repository_owner`` is the other portfolio that was the first to publish to this one's repository.
    ``account`` is the agents' account, ``missing_access`` are kinds of what gives agents their rights and is not there,
    ``drifted`` kinds of the portfolio's objects that somebody changed. ``conflicts`` say whose objects have the names
    of its own, ``warnings`` are the newest about its objects that do not get on, by uid.
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
    account: Object | None = None
    missing_access: frozenset[str] = frozenset()
    drifted: frozenset[str] = frozenset()
    conflicts: tuple[str, ...] = ()
    warnings: Mapping[str, ObjectWarning] = field(default_factory=dict)
    api_clock_offset: float = 0.0

    @property
    def namespace_is_ending(self) -> bool:
        """Whether the portfolio's namespace is being deleted, as far as may be read."""
        return bool((self.namespace or {}).get("metadata", {}).get("deletionTimestamp"))


def in_ending_namespace(snapshot: PortfolioSnapshot) -> PortfolioSnapshot:
    """``snapshot`` as it is where the API server says that the namespace is being deleted."""
    metadata = {**(snapshot.namespace or {}).get("metadata", {}), "deletionTimestamp": "1970-01-01T00:00:00Z"}
    return replace(snapshot, namespace={**(snapshot.namespace or {}), "metadata": metadata})


def owned(snapshot: PortfolioSnapshot) -> PortfolioSnapshot:
    """``snapshot`` without objects that carry the portfolio's labels and are not its own.

    Labels find objects, uids decide: anybody may set a label. A Job, DaemonSet or Service is controlled by this very
    portfolio, a pod in mode ``Managed`` by its DaemonSet, an endpoint by a pod. The Job that deletes revisions has no
    owner (it outlives what the portfolio owns): it names the portfolio's uid and is younger than its deletion.
    """
    portfolio = snapshot.portfolio
    daemon_set = _own(snapshot.daemon_set, portfolio)
    endpoints = [endpoint for endpoint in snapshot.endpoints if is_endpoint_of_ours(endpoint)]
    pods = snapshot.pods
    if not adopts(portfolio):
        pods = managed_pods(pods, daemon_set=daemon_set, endpoints=endpoints)
    return replace(
        snapshot,
        jobs=[job for job in snapshot.jobs if is_own_job(job, portfolio)],
        pods=pods,
        endpoints=endpoints,
        daemon_set=daemon_set,
        service=_own(snapshot.service, portfolio),
    )


def adopts(portfolio: Object) -> bool:
    """Whether a portfolio joins pods of others."""
    return bool(part_of(portfolio, "spec", "serving", "mode") == "Adopt")


def managed_pods(pods: Sequence[Object], *, daemon_set: Object | None, endpoints: Sequence[Object]) -> list[Object]:
    """Those of ``pods`` that ``daemon_set`` controls, or that have an endpoint already.

    A DaemonSet that is made anew adopts its pods after a moment; their endpoints stay meanwhile.
    """
    known = {str((controller_of(endpoint) or {}).get("uid", "")) for endpoint in endpoints} - {""}
    return [
        pod
        for pod in pods
        if (daemon_set is not None and is_controlled_by(pod, daemon_set)) or pod["metadata"].get("uid") in known
    ]


def is_endpoint_of_ours(endpoint: Object) -> bool:
    """Whether the operator made a ModelEndpoint: it carries its label, and a pod controls it."""
    metadata, reference = endpoint["metadata"], controller_of(endpoint)
    managed = (metadata.get("labels") or {}).get(labels.MANAGED_BY_LABEL) == labels.MANAGER
    return managed and reference is not None and reference.get("kind") == "Pod"


def is_own_job(job: Object, portfolio: Object) -> bool:
    """Whether ``portfolio`` controls ``job``, or waits for it to delete its revisions."""
    return is_controlled_by(job, portfolio) or _reclaims(job, portfolio)


def _own(thing: Object | None, portfolio: Object) -> Object | None:
    return thing if thing is not None and is_controlled_by(thing, portfolio) else None


def _reclaims(job: Object, portfolio: Object) -> bool:
    """Whether ``job`` was made to delete the revisions of this portfolio; one made beforehand proves nothing."""
    metadata, deleted = job["metadata"], portfolio["metadata"].get("deletionTimestamp")
    if (metadata.get("labels") or {}).get(labels.COMPONENT_LABEL) != labels.RECLAIM_COMPONENT or not deleted:
        return False
    return not metadata.get("ownerReferences") and str(metadata.get("creationTimestamp", deleted)) >= str(deleted)
