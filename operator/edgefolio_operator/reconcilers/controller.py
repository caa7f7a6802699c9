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
from edgefolio_operator import labels
from edgefolio_operator.cluster_state.informers import Informers, unknown_namespaces
from edgefolio_operator.cluster_state.snapshot import Plan, World, promises_before
from edgefolio_operator.endpoints.facts import Sight
from edgefolio_operator.endpoints.memory_reservations import Promise, Reservations
from edgefolio_operator.kube.cache import ObjectCache
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.leader_election import LeaderElection
from edgefolio_operator.kube.liveness import Pulse
from edgefolio_operator.kube.resync import Resync
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.metrics_recorder import Measurements
from edgefolio_operator.ownership import PortfolioKey, key_of, lost_pods, repository_owners, seniority
from edgefolio_operator.reconcilers.finalizer import plan_deletion
from edgefolio_operator.reconcilers.portfolio import reconcile
from edgefolio_operator.reconcilers.requeue import Pace
from edgefolio_operator.reconcilers.writer import LeaseLostError, Writer
from edgefolio_operator.settings import Settings

Object = dict[str, Any]
logger = logging.getLogger(__name__)


class Controller:
    """Looks after all portfolios of the namespaces it was given."""

    def __init__(
        self, api: Api, settings: Settings, metrics: Metrics, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._pace = Pace(cycle_seconds=settings.cycle_seconds)
        self._finished_at = time.monotonic()
        self._planning_seconds = 0.0
        self._states: dict[PortfolioKey, dict[str, State]] = {}
        self._promises: dict[PortfolioKey, tuple[Promise, ...]] = {}
        self._measurements = Measurements(metrics)
        self.portfolios = ObjectCache(lambda change: self._pace.asked() if change.is_by_user else self._pace.changed())
        self.endpoints = ObjectCache(lambda _: self._pace.changed())
        self.lease = LeaderElection(
            api,
            name=labels.MANAGER,
            namespace=settings.lease_namespace or api.access.namespace,
            identity=settings.identity,
            changed=self._pace.changed,
        )
        self._informers = Informers(
            api,
            settings,
            on_change=lambda _: self._pace.changed(),
            on_reading=self._pace.changed,
            is_active=self._acts,
        )
        self._writer = Writer(
            api,
            informers=self._informers,
            portfolios=self.portfolios,
            endpoints=self.endpoints,
            may_write=self._acts,
        )
        self._resync = Resync(
            api,
            {
                collection(API_VERSION, plural, namespace): store
                for plural, store in (("modelportfolios", self.portfolios), ("modelendpoints", self.endpoints))
                for namespace in settings.namespaces or ("",)
            },
        )

    @property
    def pulse(self) -> Pulse:
        """How long ago each part gave a sign of life."""
        return Pulse(
            cycle=time.monotonic() - self._finished_at,
            answer=self._api.silent_seconds,
            informers=self._informers.silences,
            deaf=self._resync.deaf,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lease.run())
            await self._informers.start(tasks)
            await self._resync.first()
            tasks.create_task(self._resync.run())
            while True:
                await self._cycle()
                await self._pace.pause(planning_seconds=self._planning_seconds)

    def _acts(self) -> bool:
        return self.lease.epoch is not None

    async def _cycle(self) -> None:
        self._metrics.leading.set(self._acts())
        self._measurements.hear(self._informers.silences)
        self._pace.begin()
        portfolios = self.portfolios.select()
        self._informers.watch_adopted_pods(portfolios)
        if self._acts():
            began, self._planning_seconds = time.monotonic(), 0.0
            await self._forget(portfolios)
            for world in self._worlds(portfolios):
                await self._one(world)
            self._metrics.reconcile_seconds.observe(time.monotonic() - began)
        self._finished_at = time.monotonic()

    def _worlds(self, portfolios: Sequence[Object]) -> list[World]:
        """What there is of each portfolio, the youngest first; not of those whose pods are not known yet."""
        selected = {key_of(entry): self._informers.pods_of(entry) for entry in portfolios}
        unknown = unknown_namespaces(selected)
        lost = lost_pods([(entry, selected.get(key_of(entry)) or ()) for entry in portfolios])
        barred = repository_owners(portfolios)
        worlds = []
        for portfolio in sorted(portfolios, key=seniority, reverse=True):
            key = key_of(portfolio)
            if key[0] in unknown:
                continue
            endpoints = self.endpoints.select(namespace=key[0], labels={labels.PORTFOLIO_LABEL: key[1]})
            world = self._informers.world(portfolio, pods=selected.get(key) or (), endpoints=endpoints)
            world = replace(world, lost_pods=lost.get(key, {}), repository_owner=barred.get(key))
            if key not in self._promises:
                self._promises[key] = promises_before(world, now=self._clock())
            worlds.append(world)
        return worlds

    async def _one(self, world: World) -> None:
        key = namespace, name = key_of(world.portfolio)
        epoch = self.lease.epoch
        if epoch is None:
            return
        try:
            if world.portfolio["metadata"].get("deletionTimestamp"):
                await self._delete(world)
                return
            began = time.monotonic()
            promises = Reservations.of(promise for made in self._promises.values() for promise in made)
            sight = Sight(
                usage=self._informers.metrics.usage,
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
            self._planning_seconds += time.monotonic() - began
            refused = await self._writer.write(world.portfolio, plan)
            # Only now: a switch that was decided and could not be written is decided again.
            self._remember(key, plan, refused, before=promises)
            self._measurements.take(key, world, plan, before=promises.promises)
        except LeaseLostError:
            logger.error("%s/%s: the lease was lost during a cycle", namespace, name)
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._metrics.reconcile_errors.inc()
            logger.warning("%s/%s: %s: %s", namespace, name, type(error).__name__, error)
            if isinstance(error, ApiError):
                await self._writer.refused(world.portfolio, error)
        except Exception:
            self._metrics.reconcile_errors.inc()
            logger.exception("%s/%s: the cycle failed", namespace, name)

    def _remember(
        self, key: PortfolioKey, plan: Plan, refused: Mapping[str, ApiError], *, before: Reservations
    ) -> None:
        """What the next cycle must know. An endpoint whose order was refused is where it was before."""
        namespace, name = key
        known, states = self._states.get(key, {}), plan.states or {}
        undone = {endpoint: known[endpoint] for endpoint in refused if endpoint in known}
        self._states[key] = {endpoint: states[endpoint] for endpoint in states if endpoint not in refused} | undone
        kept = [promise for promise in plan.promises if promise.endpoint[1] not in refused]
        for endpoint, error in refused.items():
            kept += before.promises.get((namespace, endpoint), ())
            self._metrics.reconcile_errors.inc()
            logger.warning("%s/%s: endpoint %s: %s", namespace, name, endpoint, error)
        self._promises[key] = tuple(kept)

    async def _delete(self, world: World) -> None:
        """What a portfolio owns goes with it; what it published may have to be deleted before."""
        images = self._settings.images
        plan = plan_deletion(world, images=images, now=self._clock())
        if plan is None:
            return
        try:
            await self._writer.write(world.portfolio, plan)
        except ApiError as error:
            if not error.is_of_an_ending_namespace:
                raise
            ended = plan_deletion(world, images=images, now=self._clock(), in_ending_namespace=True)
            assert ended is not None
            await self._writer.write(world.portfolio, ended)

    async def _forget(self, portfolios: Sequence[Object]) -> None:
        """Drop what is remembered of portfolios that are gone, and the endpoints that they left behind."""
        kept = {key_of(entry) for entry in portfolios}
        for key in {*self._states, *self._promises} - kept:
            self._states.pop(key, None)
            self._promises.pop(key, None)
            self._writer.forget(key)
            self._measurements.forget(key)
        for endpoint in self.endpoints.select(labels={labels.MANAGED_BY_LABEL: labels.MANAGER}):
            metadata = endpoint["metadata"]
            if (metadata["namespace"], metadata["labels"].get(labels.PORTFOLIO_LABEL)) in kept:
                continue
            try:
                await self._writer.delete_endpoint(metadata["namespace"], metadata["name"])
            except LeaseLostError:
                return
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                logger.warning("%s/%s was left behind: %s", metadata["namespace"], metadata["name"], error)
