"""Worker for one portfolio: plans, writes the plan, and keeps the state for the next plan."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from edgefolio.decision.types import State
from edgefolio_operator.cluster_state.resource_usage import Usage
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot, in_ending_namespace
from edgefolio_operator.endpoints.memory_reservations import Reservations
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.kube.client import ApiError
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.ownership import PortfolioKey, display_name, key_of
from edgefolio_operator.reconcilers.endpoint import stale_endpoints
from edgefolio_operator.reconcilers.finalizer import plan_deletion
from edgefolio_operator.reconcilers.metrics_recorder import MetricsRecorder
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.portfolio import plan_portfolio
from edgefolio_operator.reconcilers.shared_resources import SharedResources
from edgefolio_operator.reconcilers.writer import PlanWriter
from edgefolio_operator.settings import Settings

logger = logging.getLogger(__name__)


class PortfolioWorker:
    """Plans and writes; holds the decision timers of all portfolios."""

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        recorder: MetricsRecorder,
        writer: PlanWriter,
        shared: SharedResources,
        usage: Callable[[], Usage],
        enqueue: Callable[[Iterable[PortfolioKey]], None],
        want_warnings: Callable[[PortfolioKey, Iterable[str]], None],
        planned: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._recorder = recorder
        self._writer = writer
        self._shared = shared
        self._usage = usage
        self._enqueue = enqueue
        self._want_warnings = want_warnings
        self._planned = planned
        self._clock = clock
        self._states: dict[PortfolioKey, Mapping[str, State]] = {}
        self._refused: dict[PortfolioKey, Mapping[str, str]] = {}
        #: Uids of portfolios whose namespace is being deleted, as the API server said when it refused a write.
        self._ending: dict[PortfolioKey, str] = {}

    async def reconcile(self, snapshot: PortfolioSnapshot, *, epoch: int) -> None:
        """Plan from ``snapshot`` and write. Refusals of the API server are logged and reported, not raised.

        Raises :class:`~edgefolio_operator.reconcilers.writer.LeaseLostError`.
        """
        key = key_of(snapshot.portfolio)
        began = time.monotonic()
        try:
            if snapshot.portfolio["metadata"].get("deletionTimestamp"):
                await self._delete(snapshot, epoch=epoch)
            else:
                await self._keep(key, snapshot, epoch=epoch)
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._metrics.reconcile_errors.inc()
            logger.warning("%s: %s: %s", display_name(key), type(error).__name__, error)
            if isinstance(error, ApiError):
                await self._writer.refused(snapshot.portfolio, error)
        finally:
            self._metrics.reconcile_seconds.observe(time.monotonic() - began)

    def forget(self, key: PortfolioKey) -> None:
        """A portfolio is gone."""
        self._states.pop(key, None)
        self._refused.pop(key, None)
        self._ending.pop(key, None)
        self._writer.forget(key)
        self._want_warnings(key, ())
        self._recorder.forget(key)

    async def _keep(self, key: PortfolioKey, snapshot: PortfolioSnapshot, *, epoch: int) -> None:
        """Plan and write; anew where the API server says that the namespace is being deleted, if that was not known."""
        uid = str(snapshot.portfolio["metadata"]["uid"])
        if self._ending.get(key) == uid:
            snapshot = in_ending_namespace(snapshot)
        try:
            await self._plan_and_write(key, snapshot, epoch=epoch)
        except ApiError as error:
            if not error.is_of_an_ending_namespace or snapshot.namespace_is_ending:
                raise
            self._ending[key] = uid
            await self._plan_and_write(key, in_ending_namespace(snapshot), epoch=epoch)

    async def _plan_and_write(self, key: PortfolioKey, snapshot: PortfolioSnapshot, *, epoch: int) -> None:
        began = time.monotonic()
        before = self._shared.reservations(key)
        plan = plan_portfolio(
            snapshot,
            resources=ResourceView(
                usage=self._usage(), stale_after=self._settings.metrics_stale_seconds, reservations=before
            ),
            images=self._settings.images,
            states=self._states.get(key, {}),
            epoch=epoch,
            now=self._clock(),
            refused_orders=self._refused.get(key),
        )
        # Before any write: portfolios planned meanwhile must not count on the same memory.
        neighbours = self._shared.promise(key, plan.promises)
        planning_seconds = time.monotonic() - began
        try:
            refused = await self._writer.write(snapshot.portfolio, plan, epoch=epoch)
        finally:
            self._planned(planning_seconds)
        # Only now: a switch that could not be written is decided again.
        self._remember(key, plan, refused, before=before)
        self._enqueue(neighbours)
        self._want_warnings(key, plan.suspects)
        self._recorder.record(key, snapshot, plan, before=before.promises)

    def _remember(
        self, key: PortfolioKey, plan: ReconcilePlan, refused: Mapping[str, ApiError], *, before: Reservations
    ) -> None:
        """Keep the state for the next plan. An endpoint whose order was refused keeps its old state."""
        self._refused[key] = {endpoint: str(error) for endpoint, error in refused.items()}
        known = self._states.get(key, {})
        undone = {endpoint: known[endpoint] for endpoint in refused if endpoint in known}
        self._states[key] = {name: state for name, state in plan.states.items() if name not in refused} | undone
        if not refused:
            return
        kept = [promise for promise in plan.promises if promise.endpoint[1] not in refused]
        for endpoint, error in refused.items():
            kept += before.promises.get((key[0], endpoint), ())
            self._metrics.reconcile_errors.inc()
            logger.warning("%s: endpoint %s: %s", display_name(key), endpoint, error)
        self._shared.promise(key, kept)

    async def _delete(self, snapshot: PortfolioSnapshot, *, epoch: int) -> None:
        """Delete a portfolio: owned objects go with it; its revisions may have to be deleted first."""
        for name in stale_endpoints(snapshot):
            # Another portfolio waits for the pod, and the finalizer may stay for long.
            await self._writer.delete_endpoint(key_of(snapshot.portfolio)[0], name)
        images = self._settings.images
        plan = plan_deletion(snapshot, images=images, now=self._clock())
        if plan is None:
            return
        try:
            await self._writer.write(snapshot.portfolio, plan, epoch=epoch)
        except ApiError as error:
            if not error.is_of_an_ending_namespace:
                raise
            ended = plan_deletion(snapshot, images=images, now=self._clock(), in_ending_namespace=True)
            assert ended is not None
            await self._writer.write(snapshot.portfolio, ended, epoch=epoch)
