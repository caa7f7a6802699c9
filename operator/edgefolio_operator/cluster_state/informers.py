"""The operator's informers and pollers, and their snapshot of one portfolio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

import aiohttp

from edgefolio.specification.resource import API_VERSION
from edgefolio_operator import labels
from edgefolio_operator.cluster_state.adopted_pods import AdoptedPods, selector_of
from edgefolio_operator.cluster_state.drift import DriftDetector
from edgefolio_operator.cluster_state.job_progress import ProgressReader
from edgefolio_operator.cluster_state.metrics_server import MetricsPoller
from edgefolio_operator.cluster_state.report_clocks import WRITTEN_FIELD, ReportClocks, written_time
from edgefolio_operator.cluster_state.snapshot import (
    PortfolioSnapshot,
    adopts,
    is_endpoint_of_ours,
    managed_pods,
)
from edgefolio_operator.cluster_state.warning_events import WarningReader
from edgefolio_operator.kube.cache import Change, ObjectCache, strip_unread_fields
from edgefolio_operator.kube.client import Api, ApiError
from edgefolio_operator.kube.informer import Informer
from edgefolio_operator.kube.objects import Object, controller_of, is_controlled_by, object_key
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.ownership import PortfolioKey, key_of

logger = logging.getLogger(__name__)

_MAKING = {labels.COMPONENT_LABEL: labels.JOB_COMPONENT}
_JOBS = ",".join((labels.JOB_COMPONENT, labels.CHECK_COMPONENT, labels.RECLAIM_COMPONENT, labels.PROFILE_COMPONENT))
_OUR_JOBS = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER},{labels.COMPONENT_LABEL} in ({_JOBS})"
_SHARED = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER}"
_SERVING = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER},{labels.COMPONENT_LABEL}={labels.ENDPOINT_COMPONENT}"


class Informers:
    """Runs the informers, and takes snapshots of one portfolio from their caches."""

    def __init__(
        self,
        api: Api,
        *,
        namespaces: tuple[str, ...],
        reads_nodes: bool,
        metrics_poll_seconds: float,
        on_change: Callable[[Change], None],
        on_adopted_pod: Callable[[PortfolioKey], None],
        on_reading: Callable[[], None],
        is_active: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._clock = clock
        self._namespaces = namespaces
        self._on_change = on_change
        self._on_adopted_pod = on_adopted_pod
        self._informers: list[Informer] = []
        self.portfolios = self._cache(API_VERSION, "modelportfolios")
        self._reports = ReportClocks(clock=clock)
        self.endpoints = self._cache(
            API_VERSION, "modelendpoints", on_change=self._endpoint_changed, transform=_with_written_time
        )
        self._jobs = self._cache("batch/v1", "jobs", selector=_OUR_JOBS)
        self._job_pods = self._cache("v1", "pods", selector=_OUR_JOBS)
        self._pods = self._cache("v1", "pods", selector=labels.ENDPOINT_LABEL)
        self._daemon_sets = self._cache("apps/v1", "daemonsets", selector=labels.ENDPOINT_LABEL)
        self._services = self._cache("v1", "services", selector=_SERVING)
        # Roles of the version before lack these two kinds: their objects are then created, but not watched.
        self._accounts = self._cache("v1", "serviceaccounts", selector=_SHARED, is_optional=True)
        self._bindings = self._cache("rbac.authorization.k8s.io/v1", "rolebindings", selector=_SHARED, is_optional=True)
        #: Caches of the kinds that the operator writes.
        self._written = {
            "DaemonSet": self._daemon_sets,
            "Job": self._jobs,
            "ModelEndpoint": self.endpoints,
            "RoleBinding": self._bindings,
            "Service": self._services,
            "ServiceAccount": self._accounts,
        }
        self.drift = DriftDetector()
        # An operator of single namespaces may read neither nodes nor namespaces, unless it is told so; it ignores
        # annotations there.
        self._nodes = self._cache("v1", "nodes", everywhere=True) if reads_nodes else None
        self._spaces = self._cache("v1", "namespaces", everywhere=True) if reads_nodes else None
        self.metrics = MetricsPoller(
            api,
            namespaces=namespaces,
            reads_nodes=reads_nodes,
            poll_seconds=metrics_poll_seconds,
            changed=on_reading,
            clock=clock,
        )
        self._progress = ProgressReader(api, pods=self._pods_of_pruning_jobs, is_active=is_active, changed=on_reading)
        self.warnings = WarningReader(api, is_active=is_active, changed=on_reading)
        self._server_version = ServerVersion()
        self._adopted: AdoptedPods | None = None

    @property
    def silences(self) -> dict[str, float]:
        """Seconds since each informer was last heard, by its title."""
        running = self._informers if self._adopted is None else [*self._informers, *self._adopted.informers]
        found: dict[str, float] = {}
        for informer in running:
            if informer.is_refused:
                continue
            found[informer.title] = max(found.get(informer.title, 0.0), informer.silent_seconds)
        return found

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all informers in ``tasks``, and wait until each has listed its collection once.

        Before that nothing may be concluded: a portfolio that is not known yet may be the older claimant of a pod, and
        an endpoint whose portfolio is not listed yet would be taken for an orphan.
        """
        self._adopted = AdoptedPods(self._api, tasks, on_change=self._on_adopted_pod)
        for informer in self._informers:
            tasks.create_task(informer.run())
        tasks.create_task(self.metrics.run())
        tasks.create_task(self._progress.run())
        tasks.create_task(self.warnings.run())
        await asyncio.gather(*(informer.synced.wait() for informer in self._informers))
        self._server_version = await self._ask_version()

    def watch_adopted_pods(self, portfolios: Sequence[Object]) -> None:
        """Keep informers for the pods that ``portfolios`` want to adopt; none before :meth:`start`."""
        if self._adopted is not None:
            self._adopted.follow(portfolios)

    @property
    def unknown_namespaces(self) -> frozenset[str]:
        """Namespaces whose pod claims are not known yet: no pod is assigned there."""
        return frozenset() if self._adopted is None else self._adopted.unknown_namespaces

    def pods_of(self, portfolio: Object) -> list[Object] | None:
        """The pods that ``portfolio`` selects; ``None`` while they are not known yet."""
        namespace, name = key_of(portfolio)
        if not adopts(portfolio):
            own = {labels.PORTFOLIO_LABEL: name}
            return managed_pods(
                self._pods.select(namespace=namespace, labels=own),
                daemon_set=self._owned(self._daemon_sets, portfolio),
                endpoints=list(filter(is_endpoint_of_ours, self.endpoints.select(namespace=namespace, labels=own))),
            )
        assert self._adopted is not None
        return self._adopted.of(portfolio) if selector_of(portfolio) is not None else []

    def snapshot(self, portfolio: Object, *, pods: Sequence[Object], endpoints: Sequence[Object]) -> PortfolioSnapshot:
        """Snapshot of ``portfolio`` from the caches."""
        namespace, name = key_of(portfolio)
        own = {labels.PORTFOLIO_LABEL: name}
        daemon_set, service = self._owned(self._daemon_sets, portfolio), self._owned(self._services, portfolio)
        access = {
            kind: cache.get(labels.AGENT_ACCOUNT, namespace)
            for kind, cache in (("ServiceAccount", self._accounts), ("RoleBinding", self._bindings))
        }
        refused = [informer.cache for informer in self._informers if informer.is_refused]
        return PortfolioSnapshot(
            portfolio=portfolio,
            jobs=self._jobs.select(namespace=namespace, labels=own),
            job_pods=self._job_pods.select(namespace=namespace, labels=own),
            pods=pods,
            nodes=self._nodes_of(pods),
            namespace=None if self._spaces is None else self._spaces.get(namespace),
            endpoints=endpoints,
            hearings={entry["metadata"]["name"]: self._reports.of(object_key(entry)) for entry in endpoints},
            daemon_set=daemon_set,
            service=service,
            account=access["ServiceAccount"],
            missing_access=frozenset(
                kind for kind, thing in access.items() if thing is None and self._written[kind] not in refused
            ),
            drifted=frozenset(
                thing["kind"] for thing in (daemon_set, service, *access.values()) if thing and self.drift.is_due(thing)
            ),
            server_version=self._server_version,
            progress=self._progress.of(namespace),
            warnings=self.warnings.of((namespace, name)),
            api_clock_offset=self._api.clock_offset(self._clock()),
        )

    @staticmethod
    def _owned(cache: ObjectCache, portfolio: Object) -> Object | None:
        """The object of the portfolio's name, if the portfolio controls it."""
        namespace, name = key_of(portfolio)
        found = cache.get(name, namespace)
        return found if found is not None and is_controlled_by(found, portfolio) else None

    def _pods_of_pruning_jobs(self) -> list[Object]:
        """Pods that a Job of a pruning run controls; whoever only carries its labels is not read."""
        found = []
        for pod in self._job_pods.select(labels=_MAKING):
            owner = controller_of(pod) or {}
            job = self._jobs.get(str(owner.get("name", "")), pod["metadata"].get("namespace") or "")
            if job is not None and is_controlled_by(pod, job):
                found.append(pod)
        return found

    def _nodes_of(self, pods: Iterable[Object]) -> dict[str, Object] | None:
        if self._nodes is None:
            return None
        names = {str(pod["spec"].get("nodeName") or "") for pod in pods}
        return {name: node for name in names if (node := self._nodes.get(name)) is not None}

    def namespace(self, name: str) -> Object:
        """The namespace as an Event's object; it has no namespace, so its Events go to the default one."""
        known = None if self._spaces is None else self._spaces.get(name)
        return known or {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": ""}}

    def held(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as it is in the cache, whoever owns it; ``None`` of kinds that are not watched."""
        cache = self._written.get(kind)
        return None if cache is None else cache.get(name, namespace)

    def put(self, thing: Object) -> None:
        """Cache an object that was written: the next plan must not miss it."""
        cache = self._written.get(thing["kind"])
        if cache is not None:
            cache.put(thing)

    def drop_job(self, namespace: str, name: str) -> None:
        """Drop a Job that was deleted."""
        self._jobs.delete({"metadata": {"namespace": namespace, "name": name}})

    async def _ask_version(self) -> ServerVersion:
        """The version, read once; the oldest supported one if refused."""
        while True:
            try:
                return ServerVersion.of(await self._api.get("/version"))
            except ApiError as error:
                logger.warning("the version of Kubernetes is not told: %s", error)
                return ServerVersion()
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                await asyncio.sleep(1.0)

    def _endpoint_changed(self, change: Change) -> None:
        self._reports.note(change)
        self._on_change(change)

    def _cache(
        self,
        api_version: str,
        plural: str,
        *,
        selector: str = "",
        everywhere: bool = False,
        is_optional: bool = False,
        on_change: Callable[[Change], None] | None = None,
        transform: Callable[[Object], Object] | None = None,
    ) -> ObjectCache:
        """A cache, and one informer for it in each namespace, or of what belongs to none."""
        cache = ObjectCache(on_change or self._on_change, transform=transform)
        namespaces = ("",) if everywhere or not self._namespaces else self._namespaces
        self._informers += [
            Informer(
                self._api,
                cache,
                api_version=api_version,
                plural=plural,
                namespace=namespace,
                selector=selector,
                is_optional=is_optional,
            )
            for namespace in namespaces
        ]
        return cache


def _with_written_time(endpoint: Object) -> Object:
    """Cache transform of a ModelEndpoint: keeps of its managedFields when the status was written."""
    written = written_time(endpoint)
    kept = strip_unread_fields(endpoint)
    return kept if written is None else {**kept, WRITTEN_FIELD: written}
