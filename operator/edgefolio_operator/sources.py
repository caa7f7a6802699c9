"""Everything that a cycle reads beside our own two kinds: mirrors with selectors, and what nodes and pods use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from edgefolio_operator import names
from edgefolio_operator.adoption import AdoptedPods
from edgefolio_operator.api import Api, collection
from edgefolio_operator.conflicts import PortfolioKey, key_of
from edgefolio_operator.mirrors import Mirror
from edgefolio_operator.node_metrics import NodeMetrics
from edgefolio_operator.reconciling import World
from edgefolio_operator.settings import Settings

Object = dict[str, Any]

_OUR_JOBS = f"{names.MANAGED_BY_LABEL}={names.MANAGER},{names.COMPONENT_LABEL}={names.JOB_COMPONENT}"


class Sources:
    """Runs the mirrors, and gathers of them what belongs to one portfolio."""

    def __init__(self, api: Api, settings: Settings, *, changed: Callable[[], None]) -> None:
        self._api = api
        self._namespaces = settings.namespaces
        self._changed = changed
        self._jobs = self._mirrors("batch/v1", "jobs", selector=_OUR_JOBS)
        self._job_pods = self._mirrors("v1", "pods", selector=_OUR_JOBS)
        self._pods = self._mirrors("v1", "pods", selector=names.ENDPOINT_LABEL)
        self._daemon_sets = self._mirrors("apps/v1", "daemonsets", selector=names.ENDPOINT_LABEL)
        # An operator of single namespaces may read neither nodes nor namespaces; annotations there say nothing then.
        self._nodes = [] if settings.namespaces else [Mirror(api, collection("v1", "nodes"), changed=changed)]
        self._spaces = [] if settings.namespaces else [Mirror(api, collection("v1", "namespaces"), changed=changed)]
        self.metrics = NodeMetrics(
            api, namespaces=settings.namespaces, poll_seconds=settings.metrics_poll_seconds, changed=changed
        )
        self._adopted: AdoptedPods | None = None

    @property
    def mirrors(self) -> list[Mirror]:
        """All mirrors that run."""
        fixed = [*self._jobs, *self._job_pods, *self._pods, *self._daemon_sets, *self._nodes, *self._spaces]
        return fixed if self._adopted is None else [*fixed, *self._adopted.mirrors]

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all of them in ``tasks``, and wait until each has seen its collection once."""
        fixed = self.mirrors
        self._adopted = AdoptedPods(self._api, tasks, changed=self._changed)
        for mirror in fixed:
            tasks.create_task(mirror.run())
        tasks.create_task(self.metrics.run())
        await asyncio.gather(*(mirror.synced.wait() for mirror in fixed))

    def follow(self, portfolios: Sequence[Object]) -> None:
        """Mirror the pods that ``portfolios`` want to adopt."""
        assert self._adopted is not None
        self._adopted.follow(portfolios)

    def pods_of(self, portfolio: Object) -> list[Object] | None:
        """The pods that ``portfolio`` selects; ``None`` while they are not known yet."""
        namespace, name = key_of(portfolio)
        if portfolio["spec"].get("serving", {}).get("mode") != "Adopt":
            return _all(self._pods, namespace, {names.PORTFOLIO_LABEL: name})
        assert self._adopted is not None
        return self._adopted.of(portfolio)

    def world(self, portfolio: Object, *, pods: Sequence[Object], endpoints: Sequence[Object]) -> World:
        """What the API server holds of ``portfolio``, as far as mirrors show it."""
        namespace, name = key_of(portfolio)
        own = {names.PORTFOLIO_LABEL: name}
        return World(
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
        )

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
