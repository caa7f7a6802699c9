"""The cycle: look at what is, plan, write what differs; again and again.

kopf delivers portfolios and endpoints; pods, Jobs, nodes and namespaces come from mirrors with selectors. Every few
seconds, and at once after a change, each portfolio is planned anew from all of it, the youngest first: what it must
leave to an older one is free when that one's turn comes. A portfolio whose cycle fails is logged, counted and tried
again; it does not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp

from edgefolio.decision.types import State
from edgefolio.specification.resource import API_VERSION
from edgefolio_operator import names
from edgefolio_operator.api import Api, ApiError, collection
from edgefolio_operator.conflicts import PortfolioKey, key_of, lost_pods, repository_owners, seniority
from edgefolio_operator.deciding import Sight
from edgefolio_operator.events import EventSink
from edgefolio_operator.lease import Lease
from edgefolio_operator.liveness import Pulse
from edgefolio_operator.measuring import Measurements
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.mirrors import Store
from edgefolio_operator.reconciling import Plan, World, promises_before, reconcile
from edgefolio_operator.reservations import Promise, Reservations
from edgefolio_operator.resyncing import Resync
from edgefolio_operator.rewriting import Rewrites
from edgefolio_operator.settings import Settings
from edgefolio_operator.sources import Sources, unknown_namespaces

Object = dict[str, Any]
logger = logging.getLogger(__name__)

_PLURALS = {
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Job": "jobs",
    "ModelEndpoint": "modelendpoints",
    "ModelPortfolio": "modelportfolios",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}


class LeaseLostError(Exception):
    """Another operator acts; nothing more may be written."""


class Controller:
    """Looks after all portfolios of the namespaces it was given."""

    def __init__(
        self, api: Api, settings: Settings, metrics: Metrics, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._wake = asyncio.Event()
        self._finished_at = time.monotonic()
        self._states: dict[PortfolioKey, dict[str, State]] = {}
        self._promises: dict[PortfolioKey, tuple[Promise, ...]] = {}
        self._rewrites = Rewrites()
        self._events = EventSink(api)
        self._measurements = Measurements(metrics)
        self._sources = Sources(api, settings, changed=self._wake.set)
        self.portfolios = Store(self._wake.set)
        self.endpoints = Store(self._wake.set)
        self._resync = Resync(
            api,
            {
                collection(API_VERSION, plural, namespace): store
                for plural, store in (("modelportfolios", self.portfolios), ("modelendpoints", self.endpoints))
                for namespace in settings.namespaces or ("",)
            },
        )
        self.lease = Lease(
            api,
            name=names.MANAGER,
            namespace=settings.lease_namespace or api.access.namespace,
            identity=settings.identity,
            changed=self._wake.set,
        )

    @property
    def pulse(self) -> Pulse:
        """How long ago each part gave a sign of life."""
        return Pulse(
            cycle=time.monotonic() - self._finished_at,
            answer=self._api.silent_seconds,
            mirrors={mirror.path: mirror.silent_seconds for mirror in self._sources.mirrors},
            deaf=self._resync.deaf,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lease.run())
            await self._sources.start(tasks)
            await self._resync.first()
            tasks.create_task(self._resync.run())
            while True:
                await self._cycle()
                await self._pause()

    async def _pause(self) -> None:
        """Wait for the next cycle: some seconds, or less after a change, but never none."""
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), timeout=self._settings.cycle_seconds)
        except TimeoutError:
            return
        await asyncio.sleep(min(0.2, self._settings.cycle_seconds))

    async def _cycle(self) -> None:
        self._metrics.leading.set(self.lease.epoch is not None)
        now = time.time()
        for mirror in self._sources.mirrors:
            self._metrics.mirror_heard.labels(mirror.path).set(now - mirror.silent_seconds)
        portfolios = self.portfolios.all()
        self._sources.follow(portfolios)
        if self.lease.epoch is not None:
            began = time.monotonic()
            await self._forget(portfolios)
            for world in self._worlds(portfolios):
                await self._one(world)
            self._metrics.reconcile_seconds.observe(time.monotonic() - began)
        self._finished_at = time.monotonic()

    def _worlds(self, portfolios: Sequence[Object]) -> list[World]:
        """What there is of each portfolio, the youngest first; not of those whose pods are not known yet."""
        selected = {key_of(entry): self._sources.pods_of(entry) for entry in portfolios}
        unknown = unknown_namespaces(selected)
        lost = lost_pods([(entry, selected.get(key_of(entry)) or ()) for entry in portfolios])
        barred = repository_owners(portfolios)
        worlds = []
        for portfolio in sorted(portfolios, key=seniority, reverse=True):
            key = key_of(portfolio)
            if key[0] in unknown:
                continue
            endpoints = self.endpoints.all(namespace=key[0], labels={names.PORTFOLIO_LABEL: key[1]})
            world = self._sources.world(portfolio, pods=selected.get(key) or (), endpoints=endpoints)
            world = replace(world, lost_pods=lost.get(key, {}), repository_owner=barred.get(key))
            if key not in self._promises:
                self._promises[key] = promises_before(world, now=self._clock())
            worlds.append(world)
        return worlds

    async def _one(self, world: World) -> None:
        portfolio = world.portfolio
        key = namespace, name = key_of(portfolio)
        epoch = self.lease.epoch
        if epoch is None:
            return
        try:
            if _is_ending(portfolio):
                return  # what it owns goes with it
            promises = Reservations.of(promise for made in self._promises.values() for promise in made)
            sight = Sight(
                usage=self._sources.metrics.usage,
                stale_after=self._settings.metrics_stale_seconds,
                reservations=promises,
            )
            plan = reconcile(
                replace(world, sight=sight),
                images=self._settings.images,
                states=self._states.get(key, {}),
                epoch=epoch,
                now=self._clock(),
            )
            await self._write(portfolio, plan)
            # Only now: a switch that was decided and could not be written is decided again.
            self._states[key] = dict(plan.states or {})
            self._promises[key] = plan.promises
            self._measurements.take(key, world, plan, before=promises.promises)
        except LeaseLostError:
            logger.error("%s/%s: the lease was lost during a cycle", namespace, name)
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._metrics.reconcile_errors.inc()
            logger.warning("%s/%s: %s: %s", namespace, name, type(error).__name__, error)
        except Exception:
            self._metrics.reconcile_errors.inc()
            logger.exception("%s/%s: the cycle failed", namespace, name)

    async def _write(self, portfolio: Mapping[str, Any], plan: Plan) -> None:
        key = namespace, _ = key_of(portfolio)
        jobs = collection("batch/v1", "jobs", namespace)
        for name in plan.delete_jobs:
            self._may_write()
            await self._api.delete(f"{jobs}/{name}")
        for name in plan.delete_endpoints:
            self._may_write()
            await self._delete_endpoint(namespace, name)
        for document in plan.apply:
            self._may_write()
            document["metadata"]["namespace"] = namespace
            written = await self._api.apply(document, plural=_PLURALS[document["kind"]])
            if document["kind"] == "ModelEndpoint":
                self.endpoints.put(written)
        if plan.delete_daemon_set is not None:
            self._may_write()
            await self._api.delete(collection("apps/v1", "daemonsets", namespace) + f"/{plan.delete_daemon_set}")
        if plan.suspend_job is not None:
            self._may_write()
            name, suspend = plan.suspend_job
            await self._api.merge(f"{jobs}/{name}", {"spec": {"suspend": suspend}})
        status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if status != portfolio.get("status") or self._rewrites.is_due(key):
            self._may_write()
            identity = {"name": portfolio["metadata"]["name"], "namespace": namespace}
            head = {"apiVersion": portfolio["apiVersion"], "kind": portfolio["kind"], "metadata": identity}
            written = await self._api.apply({**head, "status": status}, plural="modelportfolios", subresource="status")
            self.portfolios.put(written)
            self._rewrites.written(key)
        for event in plan.events:
            about = portfolio if event.endpoint is None else self.endpoints.get(event.endpoint, namespace)
            if about is not None and not await self._events.tell(about, event):
                break  # an API server that hangs must not hang the cycle

    def _may_write(self) -> None:
        if self.lease.epoch is None:
            raise LeaseLostError

    async def _forget(self, portfolios: Sequence[Object]) -> None:
        """Drop what is remembered of portfolios that are gone, and the endpoints that they left behind."""
        kept = {key_of(entry) for entry in portfolios}
        for key in {*self._states, *self._promises} - kept:
            self._states.pop(key, None)
            self._promises.pop(key, None)
            self._rewrites.forget(key)
            self._measurements.forget(key)
        for endpoint in self.endpoints.all(labels={names.MANAGED_BY_LABEL: names.MANAGER}):
            owner = endpoint["metadata"]["namespace"], endpoint["metadata"]["labels"].get(names.PORTFOLIO_LABEL)
            if owner in kept or self.lease.epoch is None:
                continue
            try:
                await self._delete_endpoint(endpoint["metadata"]["namespace"], endpoint["metadata"]["name"])
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                logger.warning("%s/%s was left behind: %s", *owner, error)

    async def _delete_endpoint(self, namespace: str, name: str) -> None:
        await self._api.delete(f"{collection(API_VERSION, 'modelendpoints', namespace)}/{name}")
        self.endpoints.drop({"metadata": {"namespace": namespace, "name": name}})


def _is_ending(portfolio: Mapping[str, Any]) -> bool:
    return bool(portfolio["metadata"].get("deletionTimestamp"))
