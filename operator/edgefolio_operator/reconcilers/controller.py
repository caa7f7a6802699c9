"""The controller: maps changes to portfolios, which workers reconcile one by one.

Each portfolio is planned anew from the informers' caches soon after one of its objects changed, and every few seconds.
A failed one is logged, counted and retried; hanging writes block one worker only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import aiohttp

from edgefolio_operator import labels
from edgefolio_operator.cluster_state.informers import Informers
from edgefolio_operator.cluster_state.snapshot import is_endpoint_of_ours
from edgefolio_operator.kube.cache import Change
from edgefolio_operator.kube.client import Api, ApiError
from edgefolio_operator.kube.epoch import SeenEpochs
from edgefolio_operator.kube.leader_election import LeaderElection
from edgefolio_operator.kube.liveness import Pulse
from edgefolio_operator.kube.objects import object_key
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.ownership import PortfolioKey, display_name, key_of, labelled_owner, proof
from edgefolio_operator.reconcilers.metrics_recorder import MetricsRecorder
from edgefolio_operator.reconcilers.reclaim_policy import has_finalizer
from edgefolio_operator.reconcilers.shared_resources import SharedResources
from edgefolio_operator.reconcilers.snapshot_source import SnapshotSource
from edgefolio_operator.reconcilers.work_queue import WorkQueue
from edgefolio_operator.reconcilers.worker import PortfolioWorker
from edgefolio_operator.reconcilers.writer import LeaseLostError, PlanWriter
from edgefolio_operator.settings import Settings

logger = logging.getLogger(__name__)

#: Portfolios that are reconciled at the same time; planning itself is never concurrent.
WORKERS = 8
#: A portfolio in work for this long is named in the log.
_HANGING_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 2.0
_TRANSIENT = (aiohttp.ClientError, OSError, TimeoutError)


class Controller:
    """Reconciles all portfolios of the namespaces it was given."""

    def __init__(
        self, api: Api, settings: Settings, metrics: Metrics, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._queue = WorkQueue(requeue_seconds=settings.cycle_seconds)
        self._shared = SharedResources()
        self._recorder = MetricsRecorder(metrics)
        self._looked_at = time.monotonic()
        self._started = False
        self._home = settings.lease_namespace or api.access.namespace
        self._epoch: int | None = None
        self.lease = LeaderElection(
            api,
            name=labels.MANAGER,
            namespace=settings.lease_namespace or api.access.namespace,
            identity=settings.identity,
            changed=self._enqueue_all,
            seen=lambda: SeenEpochs.of(self._informers.endpoints.select()),
        )
        self._informers = Informers(
            api,
            namespaces=settings.namespaces,
            reads_nodes=settings.reads_nodes,
            metrics_poll_seconds=settings.metrics_poll_seconds,
            on_change=self._changed,
            on_adopted_pod=self._adopted_pod_changed,
            on_reading=self._enqueue_all,
            is_active=self._leads,
            clock=clock,
        )
        self._writer = PlanWriter(
            api,
            informers=self._informers,
            epoch=lambda: self.lease.epoch,
        )
        self._snapshots = SnapshotSource(
            self._informers,
            self._shared,
            conflicts=self._writer.conflicts,
            enqueue=self._enqueue,
            clock=clock,
        )
        self._worker = PortfolioWorker(
            settings=settings,
            metrics=metrics,
            recorder=self._recorder,
            writer=self._writer,
            shared=self._shared,
            usage=lambda: self._informers.metrics.usage,
            enqueue=self._enqueue,
            want_warnings=self._informers.warnings.want,
            planned=self._queue.planned,
            clock=clock,
        )

    @property
    def pulse(self) -> Pulse:
        """The liveness figures of each part."""
        return Pulse(
            cycle=max(time.monotonic() - self._looked_at, self._queue.stuck_seconds),
            answer=self._api.silent_seconds,
            informers=self._informers.silences,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            # First: an API server that is out of reach at the start is no hung process.
            tasks.create_task(self._look_after())
            await self._informers.start(tasks)
            self._started = True
            # Not before the endpoints are known: the epoch must be above theirs.
            tasks.create_task(self.lease.run())
            self._informers.watch_adopted_pods(self._informers.portfolios.select())
            self._enqueue_all()
            for _ in range(WORKERS):
                tasks.create_task(self._work())

    async def release_portfolios(self) -> None:
        """Take the operator's finalizer off all portfolios if its own namespace is being deleted, as an uninstall does.

        It is told to end then, and that namespace and portfolios that are deleted later would wait for it for ever.
        """
        held = [portfolio for portfolio in self._informers.portfolios.select() if has_finalizer(portfolio)]
        if not held or not self._leads() or not await self._api.is_ending(self._home):
            return
        for portfolio in held:
            try:
                await self._writer.release(portfolio)
            except (ApiError, *_TRANSIENT) as error:
                logger.warning("%s keeps its finalizer: %s", display_name(key_of(portfolio)), error)

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            known = True
            try:
                known = await self._reconcile(key)
            except LeaseLostError:
                logger.error("%s: the lease was lost or taken anew during a reconciliation", display_name(key))
            except Exception as error:
                self._metrics.reconcile_errors.inc()
                logger.exception("%s: the reconciliation failed", display_name(key))
                await self._say_failed(key, error)
            finally:
                self._queue.done(key, requeue=known)

    async def _say_failed(self, key: PortfolioKey, error: Exception) -> None:
        portfolio = self._informers.portfolios.get(key[1], key[0])
        if portfolio is None or not self._leads():
            return
        try:
            await self._writer.failed(portfolio, error)
        except Exception:
            logger.exception("%s: its fault cannot be told", display_name(key))

    async def _reconcile(self, key: PortfolioKey) -> bool:
        """Reconcile one portfolio; returns whether there is more to do for it later."""
        portfolio = self._informers.portfolios.get(key[1], key[0])
        if portfolio is None:
            return await self._clean_up(key)
        epoch = self.lease.epoch
        if epoch is None:
            return True
        if epoch != self._epoch:
            self._epoch = epoch
            # All claims and promises, before the first plan.
            self._snapshots.index_all()
            self._enqueue_all()
        snapshot = self._snapshots.of(portfolio)
        if snapshot is not None:
            await self._worker.reconcile(snapshot, epoch=epoch)
        return True

    async def _clean_up(self, key: PortfolioKey) -> bool:
        """Delete the orphaned endpoints of a deleted portfolio, and forget it."""
        namespace, name = key
        self._enqueue(self._shared.remove(key))
        self._worker.forget(key)
        self._snapshots.forget(key)
        left = self._informers.endpoints.select(
            namespace=namespace,
            labels={labels.MANAGED_BY_LABEL: labels.MANAGER, labels.PORTFOLIO_LABEL: name},
        )
        left = [endpoint for endpoint in left if is_endpoint_of_ours(endpoint)]
        if left and not self._leads():
            return True
        for endpoint in left:
            try:
                await self._writer.delete_endpoint(namespace, endpoint["metadata"]["name"])
            except (ApiError, *_TRANSIENT) as error:
                logger.warning("%s/%s was left behind: %s", namespace, endpoint["metadata"]["name"], error)
                return True
        return False

    async def _look_after(self) -> None:
        """Record the controller's own metrics, and log portfolios that hang."""
        named: set[PortfolioKey] = set()
        while True:
            self._looked_at = time.monotonic()
            self._metrics.leading.set(self._leads())
            self._recorder.record_silences(self._informers.silences)
            hanging = {key for key, seconds in self._queue.active_seconds.items() if seconds > _HANGING_SECONDS}
            for key in hanging - named:
                logger.error("%s: its reconciliation hangs; the others go on", display_name(key))
            named = hanging
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    def _leads(self) -> bool:
        return self.lease.epoch is not None

    def _enqueue(self, keys: Iterable[PortfolioKey], *, urgent: bool = True) -> None:
        for key in keys:
            self._queue.add(key, urgent=urgent)

    def _enqueue_all(self) -> None:
        self._enqueue({key_of(portfolio) for portfolio in self._informers.portfolios.select()}, urgent=False)

    def _portfolio_changed(self, change: Change) -> None:
        key = key_of(change.object)
        self._queue.add(key, urgent=change.is_by_user)
        if change.is_by_user or _has_published(change):
            self._snapshots.pods_changed({key})
        if change.is_by_user and self._started:
            self._informers.watch_adopted_pods(self._informers.portfolios.select())

    def _endpoint_changed(self, change: Change) -> None:
        namespace, name = object_key(change.object)
        keys = _owners_of(change)
        self._enqueue(keys, urgent=False)
        owner = self._shared.pod_owner(namespace, name) if change.after is None else None
        if owner is not None and owner not in keys:
            self._queue.add(owner, urgent=True)

    def _changed(self, change: Change) -> None:
        """Map a change of any object to its portfolios."""
        kind, (_, name) = change.object.get("kind"), object_key(change.object)
        if kind == "ModelPortfolio":
            self._portfolio_changed(change)
        elif kind == "ModelEndpoint":
            self._endpoint_changed(change)
        elif kind == "Node":
            self._enqueue(self._shared.on_node(name), urgent=False)
        elif kind in ("ServiceAccount", "RoleBinding"):
            # All portfolios of a namespace share them.
            namespace = object_key(change.object)[0]
            self._enqueue(map(key_of, self._informers.portfolios.select(namespace=namespace)), urgent=False)
        elif kind == "Namespace":
            self._enqueue(map(key_of, self._informers.portfolios.select(namespace=name)), urgent=False)
        else:
            keys = {key for key in _owners_of(change) if self._informers.portfolios.get(key[1], key[0]) is not None}
            if kind in ("Pod", "DaemonSet"):
                # A pod is a portfolio's through its DaemonSet.
                self._snapshots.pods_changed(keys)
            self._enqueue(keys, urgent=False)

    def _adopted_pod_changed(self, key: PortfolioKey) -> None:
        self._snapshots.pods_changed({key})
        self._queue.add(key)


def _has_published(change: Change) -> bool:
    """Whether a portfolio's claim on its repository changed with its status."""
    known = [proof(thing) for thing in (change.before, change.after) if thing is not None]
    return len(set(known)) > 1


def _owners_of(change: Change) -> set[PortfolioKey]:
    """The portfolios of an object's old and new labels."""
    return {key for thing in (change.before, change.after) if (key := labelled_owner(thing)) is not None}
