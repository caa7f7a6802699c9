"""Everything that a cycle reads beside our own two kinds: mirrors with selectors, and what nodes and pods use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from edgefolio_operator import labels
from edgefolio_operator.cluster_state.adopted_pods import AdoptedPods
from edgefolio_operator.cluster_state.job_progress import ProgressReader
from edgefolio_operator.cluster_state.metrics_server import NodeMetrics
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.informer import Mirror
from edgefolio_operator.kube.server_version import Capabilities
from edgefolio_operator.ownership import PortfolioKey, key_of
from edgefolio_operator.settings import Settings

Object = dict[str, Any]
logger = logging.getLogger(__name__)

_MAKING = {labels.COMPONENT_LABEL: labels.JOB_COMPONENT}
_JOBS = ",".join((labels.JOB_COMPONENT, labels.CHECK_COMPONENT, labels.RECLAIM_COMPONENT))
_OUR_JOBS = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER},{labels.COMPONENT_LABEL} in ({_JOBS})"
_SERVING = f"{labels.MANAGED_BY_LABEL}={labels.MANAGER},{labels.COMPONENT_LABEL}={labels.ENDPOINT_COMPONENT}"


class Sources:
    """Runs the mirrors, and gathers of them what belongs to one portfolio."""

    def __init__(
        self, api: Api, settings: Settings, *, changed: Callable[[], None], is_active: Callable[[], bool]
    ) -> None:
        self._api = api
        self._namespaces = settings.namespaces
        self._changed = changed
        self._jobs = self._mirrors("batch/v1", "jobs", selector=_OUR_JOBS)
        self._job_pods = self._mirrors("v1", "pods", selector=_OUR_JOBS)
        self._pods = self._mirrors("v1", "pods", selector=labels.ENDPOINT_LABEL)
        self._daemon_sets = self._mirrors("apps/v1", "daemonsets", selector=labels.ENDPOINT_LABEL)
        self._services = self._mirrors("v1", "services", selector=_SERVING)
        # An operator of single namespaces may read neither nodes nor namespaces; annotations there say nothing then.
        self._nodes = [] if settings.namespaces else [Mirror(api, collection("v1", "nodes"), changed=changed)]
        self._spaces = [] if settings.namespaces else [Mirror(api, collection("v1", "namespaces"), changed=changed)]
        self.metrics = NodeMetrics(
            api, namespaces=settings.namespaces, poll_seconds=settings.metrics_poll_seconds, changed=changed
        )
        self._progress = ProgressReader(
            api,
            pods=lambda: [pod for mirror in self._job_pods for pod in mirror.store.all(labels=_MAKING)],
            is_active=is_active,
            changed=changed,
        )
        self._capabilities = Capabilities()
        self._adopted: AdoptedPods | None = None

    @property
    def mirrors(self) -> list[Mirror]:
        """All mirrors that run."""
        fixed = [*self._jobs, *self._job_pods, *self._pods, *self._daemon_sets, *self._services]
        fixed += [*self._nodes, *self._spaces]
        return fixed if self._adopted is None else [*fixed, *self._adopted.mirrors]

    @property
    def silences(self) -> dict[str, float]:
        """Seconds since each part was last heard, by what it follows."""
        found: dict[str, float] = {}
        for mirror in self.mirrors:
            found[mirror.title] = max(found.get(mirror.title, 0.0), mirror.silent_seconds)
        return found

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all of them in ``tasks``, and wait until each has seen its collection once."""
        fixed = self.mirrors
        self._adopted = AdoptedPods(self._api, tasks, changed=self._changed)
        for mirror in fixed:
            tasks.create_task(mirror.run())
        tasks.create_task(self.metrics.run())
        tasks.create_task(self._progress.run())
        await asyncio.gather(*(mirror.synced.wait() for mirror in fixed))
        self._capabilities = await self._found_capabilities()

    def follow(self, portfolios: Sequence[Object]) -> None:
        """Mirror the pods that ``portfolios`` want to adopt."""
        assert self._adopted is not None
        self._adopted.follow(portfolios)

    def pods_of(self, portfolio: Object) -> list[Object] | None:
        """The pods that ``portfolio`` selects; ``None`` while they are not known yet."""
        namespace, name = key_of(portfolio)
        if portfolio["spec"].get("serving", {}).get("mode") != "Adopt":
            return _all(self._pods, namespace, {labels.PORTFOLIO_LABEL: name})
        assert self._adopted is not None
        return self._adopted.of(portfolio)

    def world(self, portfolio: Object, *, pods: Sequence[Object], endpoints: Sequence[Object]) -> PortfolioSnapshot:
        """What the API server holds of ``portfolio``, as far as mirrors show it."""
        namespace, name = key_of(portfolio)
        own = {labels.PORTFOLIO_LABEL: name}
        return PortfolioSnapshot(
            portfolio=portfolio,
            jobs=_all(self._jobs, namespace, own),
            job_pods=_all(self._job_pods, namespace, own),
            pods=pods,
            nodes={node["metadata"]["name"]: node for mirror in self._nodes for node in mirror.store.all()}
            if self._nodes
            else None,
            namespace=next((mirror.store.get(namespace) for mirror in self._spaces), None),
            endpoints=endpoints,
            daemon_set=next(iter(_all(self._daemon_sets, namespace, own)), None),
            service=next(iter(_all(self._services, namespace, own)), None),
            capabilities=self._capabilities,
            progress=self._progress.of(namespace),
        )

    def namespace(self, name: str) -> Object:
        """The namespace as something to tell of; it has none itself, and its events go to the default one."""
        known = next((mirror.store.get(name) for mirror in self._spaces), None)
        return known or {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": ""}}

    def put_job(self, namespace: str, job: Object) -> None:
        """A Job was written: the next cycle must not miss it."""
        self._jobs[self._namespaces.index(namespace) if self._namespaces else 0].store.put(job)

    def drop_job(self, namespace: str, name: str) -> None:
        """A Job was deleted."""
        for mirror in self._jobs:
            mirror.store.drop({"metadata": {"namespace": namespace, "name": name}})

    async def _found_capabilities(self) -> Capabilities:
        """What the cluster can do; little, where the operator may not know its version. Asked once."""
        while True:
            try:
                return Capabilities.of(await self._api.get("/version"))
            except ApiError as error:
                logger.warning("the version of Kubernetes is not told: %s", error)
                return Capabilities()
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                await asyncio.sleep(1.0)

    def _mirrors(self, api_version: str, plural: str, *, selector: str) -> list[Mirror]:
        return [
            Mirror(self._api, collection(api_version, plural, namespace), selector=selector, changed=self._changed)
            for namespace in self._namespaces or ("",)
        ]


def unknown_namespaces(pods: dict[PortfolioKey, list[Object] | None]) -> set[str]:
    """Namespaces where it is not known yet who claims which pod: nobody is given one there."""
    return {namespace for (namespace, _), found in pods.items() if found is None}


def _all(mirrors: Sequence[Mirror], namespace: str, labels: dict[str, str]) -> list[Object]:
    return [thing for mirror in mirrors for thing in mirror.store.all(namespace=namespace, labels=labels)]
