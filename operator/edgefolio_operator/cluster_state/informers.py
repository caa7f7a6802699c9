"""The informers of the operator beside its own two kinds, and the usage of nodes and pods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import aiohttp

from edgefolio_operator import labels
from edgefolio_operator.cluster_state.adopted_pods import AdoptedPods
from edgefolio_operator.cluster_state.job_progress import ProgressReader
from edgefolio_operator.cluster_state.metrics_server import MetricsPoller
from edgefolio_operator.cluster_state.snapshot import World
from edgefolio_operator.kube.cache import Change
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.informer import Informer
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.ownership import PortfolioKey, key_of
from edgefolio_operator.settings import Settings

logger = logging.getLogger(__name__)

_MAKING = {labels.COMPONENT_LABEL: labels.JOB_COMPONENT}
_JOBS = ",".join((labels.JOB_COMPONENT, labels.CHECK_COMPONENT, labels.RECLAIM_COMPONENT))
_OUR_JOBS = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER},{labels.COMPONENT_LABEL} in ({_JOBS})"
_SERVING = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER},{labels.COMPONENT_LABEL}={labels.ENDPOINT_COMPONENT}"


class Informers:
    """Runs the informers, and gathers from their caches what belongs to one portfolio."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        *,
        on_change: Callable[[Change], None],
        on_reading: Callable[[], None],
        is_active: Callable[[], bool],
    ) -> None:
        self._api = api
        self._namespaces = settings.namespaces
        self._on_change = on_change
        self._jobs = self._per_namespace("batch/v1", "jobs", selector=_OUR_JOBS)
        self._job_pods = self._per_namespace("v1", "pods", selector=_OUR_JOBS)
        self._pods = self._per_namespace("v1", "pods", selector=labels.ENDPOINT_LABEL)
        self._daemon_sets = self._per_namespace("apps/v1", "daemonsets", selector=labels.ENDPOINT_LABEL)
        self._services = self._per_namespace("v1", "services", selector=_SERVING)
        # An operator of single namespaces may read neither nodes nor namespaces; annotations there say nothing then.
        self._nodes = [] if settings.namespaces else [self._informer("v1", "nodes")]
        self._spaces = [] if settings.namespaces else [self._informer("v1", "namespaces")]
        self.metrics = MetricsPoller(
            api, namespaces=settings.namespaces, poll_seconds=settings.metrics_poll_seconds, changed=on_reading
        )
        self._progress = ProgressReader(
            api,
            pods=lambda: [pod for informer in self._job_pods for pod in informer.cache.select(labels=_MAKING)],
            is_active=is_active,
            changed=on_reading,
        )
        self._server_version = ServerVersion()
        self._adopted: AdoptedPods | None = None

    @property
    def informers(self) -> list[Informer]:
        """All informers that run."""
        fixed = [*self._jobs, *self._job_pods, *self._pods, *self._daemon_sets, *self._services]
        fixed += [*self._nodes, *self._spaces]
        return fixed if self._adopted is None else [*fixed, *self._adopted.informers]

    @property
    def silences(self) -> dict[str, float]:
        """Seconds since each part was last heard, by what it follows."""
        found: dict[str, float] = {}
        for informer in self.informers:
            found[informer.title] = max(found.get(informer.title, 0.0), informer.silent_seconds)
        return found

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all of them in ``tasks``, and wait until each has seen its collection once."""
        fixed = self.informers
        self._adopted = AdoptedPods(self._api, tasks, on_change=self._on_change)
        for informer in fixed:
            tasks.create_task(informer.run())
        tasks.create_task(self.metrics.run())
        tasks.create_task(self._progress.run())
        await asyncio.gather(*(informer.synced.wait() for informer in fixed))
        self._server_version = await self._ask_version()

    def watch_adopted_pods(self, portfolios: Sequence[Object]) -> None:
        """Keep informers for the pods that ``portfolios`` want to adopt."""
        assert self._adopted is not None
        self._adopted.follow(portfolios)

    def pods_of(self, portfolio: Object) -> list[Object] | None:
        """The pods that ``portfolio`` selects; ``None`` while they are not known yet."""
        namespace, name = key_of(portfolio)
        if portfolio["spec"].get("serving", {}).get("mode") != "Adopt":
            return _all(self._pods, namespace, {labels.PORTFOLIO_LABEL: name})
        assert self._adopted is not None
        return self._adopted.of(portfolio)

    def world(self, portfolio: Object, *, pods: Sequence[Object], endpoints: Sequence[Object]) -> World:
        """What the API server holds of ``portfolio``, as far as the caches show it."""
        namespace, name = key_of(portfolio)
        own = {labels.PORTFOLIO_LABEL: name}
        return World(
            portfolio=portfolio,
            jobs=_all(self._jobs, namespace, own),
            job_pods=_all(self._job_pods, namespace, own),
            pods=pods,
            nodes={node["metadata"]["name"]: node for informer in self._nodes for node in informer.cache.select()}
            if self._nodes
            else None,
            namespace=next((informer.cache.get(namespace) for informer in self._spaces), None),
            endpoints=endpoints,
            daemon_set=next(iter(_all(self._daemon_sets, namespace, own)), None),
            service=next(iter(_all(self._services, namespace, own)), None),
            server_version=self._server_version,
            progress=self._progress.of(namespace),
        )

    def namespace(self, name: str) -> Object:
        """The namespace as something to tell of; it has none itself, and its events go to the default one."""
        known = next((informer.cache.get(name) for informer in self._spaces), None)
        return known or {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": ""}}

    def put_job(self, namespace: str, job: Object) -> None:
        """A Job was written: the next cycle must not miss it."""
        self._jobs[self._namespaces.index(namespace) if self._namespaces else 0].cache.put(job)

    def drop_job(self, namespace: str, name: str) -> None:
        """A Job was deleted."""
        for informer in self._jobs:
            informer.cache.delete({"metadata": {"namespace": namespace, "name": name}})

    async def _ask_version(self) -> ServerVersion:
        """The version; the oldest supported one where the operator may not know it. Asked once."""
        while True:
            try:
                return ServerVersion.of(await self._api.get("/version"))
            except ApiError as error:
                logger.warning("the version of Kubernetes is not told: %s", error)
                return ServerVersion()
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                await asyncio.sleep(1.0)

    def _per_namespace(self, api_version: str, plural: str, *, selector: str) -> list[Informer]:
        return [
            self._informer(api_version, plural, namespace, selector=selector) for namespace in self._namespaces or ("",)
        ]

    def _informer(self, api_version: str, plural: str, namespace: str = "", *, selector: str = "") -> Informer:
        path = collection(api_version, plural, namespace)
        return Informer(self._api, path, selector=selector, on_change=self._on_change)


def unknown_namespaces(pods: dict[PortfolioKey, list[Object] | None]) -> set[str]:
    """Namespaces where it is not known yet who claims which pod: nobody is given one there."""
    return {namespace for (namespace, _), found in pods.items() if found is None}


def _all(informers: Sequence[Informer], namespace: str, labels: dict[str, str]) -> list[Object]:
    return [thing for informer in informers for thing in informer.cache.select(namespace=namespace, labels=labels)]
