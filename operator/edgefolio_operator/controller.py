"""The cycle: look at what is, plan, write what differs; again and again.

kopf delivers portfolios and endpoints; pods, Jobs, nodes and namespaces come from mirrors with selectors. Every few
seconds, and at once after a change, each portfolio is planned anew from all of it. A portfolio whose cycle fails is
logged, counted and tried again; it does not hold up the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from edgefolio.decision.types import State
from edgefolio_operator import names
from edgefolio_operator.api import Api, ApiError, collection
from edgefolio_operator.capabilities import Capabilities
from edgefolio_operator.deleting import plan_deletion
from edgefolio_operator.events import EventSink
from edgefolio_operator.lease import Lease
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.mirrors import Mirror, Store
from edgefolio_operator.progress import ProgressReader
from edgefolio_operator.reconciling import Plan, World, reconcile
from edgefolio_operator.settings import Settings
from edgefolio_operator.writing import write_each

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
_MAKING = {names.COMPONENT_LABEL: names.JOB_COMPONENT}
#: A controller that has not finished a cycle for this long is not alive.
LONGEST_CYCLE_SECONDS = 120.0
#: A change is rarely alone: so long the cycle waits for what comes with it.
_GATHERING_SECONDS = 0.2
#: Where many endpoints report, something changes all the time. Planning then takes at most a fifth of one processor.
_REST_TO_WORK = 4.0
_JOBS = ",".join((names.JOB_COMPONENT, names.CHECK_COMPONENT, names.RECLAIM_COMPONENT))
_MINE = f"{names.MANAGED_BY_LABEL}={names.MANAGER},{names.COMPONENT_LABEL} in ({_JOBS})"
_SERVING = f"{names.MANAGED_BY_LABEL}={names.MANAGER},{names.COMPONENT_LABEL}={names.ENDPOINT_COMPONENT}"


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
        self._planning_seconds = 0.0
        self._states: dict[tuple[str, str], dict[str, State]] = {}
        self._said: dict[tuple[str, str], tuple[str, str]] = {}
        self._events = EventSink(api)
        self._progress = ProgressReader(
            api,
            pods=lambda: [pod for mirror in self._job_pods for pod in mirror.store.all(labels=_MAKING)],
            is_active=lambda: self.lease.epoch is not None,
            changed=self._wake.set,
        )
        self.portfolios = Store(self._wake.set)
        self.endpoints = Store(self._wake.set)
        self.lease = Lease(
            api,
            name=names.MANAGER,
            namespace=settings.lease_namespace or api.access.namespace,
            identity=settings.identity,
            changed=self._wake.set,
        )
        self._jobs = self._mirrors("batch/v1", "jobs", selector=_MINE)
        self._job_pods = self._mirrors("v1", "pods", selector=_MINE)
        self._pods = self._mirrors("v1", "pods", selector=names.ENDPOINT_LABEL)
        self._daemon_sets = self._mirrors("apps/v1", "daemonsets", selector=names.ENDPOINT_LABEL)
        self._services = self._mirrors("v1", "services", selector=_SERVING)
        self._capabilities = Capabilities()
        # An operator of a few namespaces may read neither nodes nor namespaces; annotations there say nothing then.
        self._nodes = None if settings.namespaces else Mirror(api, collection("v1", "nodes"), changed=self._wake.set)
        self._spaces = (
            None if settings.namespaces else Mirror(api, collection("v1", "namespaces"), changed=self._wake.set)
        )

    @property
    def silent_seconds(self) -> float:
        """Seconds since a cycle was finished, or was rightly not begun."""
        return time.monotonic() - self._finished_at

    async def run(self) -> None:
        """Work until cancelled."""
        everything = [*self._jobs, *self._job_pods, *self._pods, *self._daemon_sets, *self._services]
        everything += [mirror for mirror in (self._nodes, self._spaces) if mirror is not None]
        async with asyncio.TaskGroup() as tasks:
            for mirror in everything:
                tasks.create_task(mirror.run())
            tasks.create_task(self.lease.run())
            tasks.create_task(self._progress.run())
            await asyncio.gather(*(mirror.synced.wait() for mirror in everything))
            self._capabilities = await self._found_capabilities()
            while True:
                await self._cycle()
                await self._pause()

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
            Mirror(self._api, collection(api_version, plural, namespace), selector=selector, changed=self._wake.set)
            for namespace in self._settings.namespaces or ("",)
        ]

    async def _pause(self) -> None:
        """Wait for the next cycle: some seconds, or less after a change, but never none."""
        ended = time.monotonic()
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), timeout=self._settings.cycle_seconds)
        except TimeoutError:
            return
        gone = time.monotonic() - ended
        shortest = min(_GATHERING_SECONDS, self._settings.cycle_seconds)
        rest = min(_REST_TO_WORK * self._planning_seconds, self._settings.cycle_seconds)
        await asyncio.sleep(max(shortest, rest - gone))

    async def _cycle(self) -> None:
        self._metrics.leading.set(self.lease.epoch is not None)
        if self.lease.epoch is not None:
            began, self._planning_seconds = time.monotonic(), 0.0
            portfolios = self.portfolios.all()
            for portfolio in portfolios:
                await self._one(portfolio)
            self._forget(portfolios)
            self._metrics.reconcile_seconds.observe(time.monotonic() - began)
        self._finished_at = time.monotonic()

    async def _one(self, portfolio: Object) -> None:
        namespace, name = portfolio["metadata"]["namespace"], portfolio["metadata"]["name"]
        epoch = self.lease.epoch
        if epoch is None:
            return
        try:
            if portfolio["metadata"].get("deletionTimestamp"):
                await self._delete(portfolio)
                return
            began = time.monotonic()
            plan = reconcile(
                self._world(portfolio),
                images=self._settings.images,
                states=self._states.get((namespace, name), {}),
                epoch=epoch,
                now=self._clock(),
            )
            self._planning_seconds += time.monotonic() - began
            refused = await self._write(portfolio, plan)
            # Only now: a switch that was decided and could not be written is decided again.
            before, after = self._states.get((namespace, name), {}), plan.states or {}
            undone = {key: before[key] for key in refused if key in before}
            self._states[namespace, name] = {key: after[key] for key in after if key not in refused} | undone
            self._measure(namespace, name, plan)
            for endpoint, error in refused.items():
                self._metrics.reconcile_errors.inc()
                logger.warning("%s/%s: endpoint %s: %s", namespace, name, endpoint, error)
        except LeaseLostError:
            logger.error("%s/%s: the lease was lost during a cycle", namespace, name)
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._metrics.reconcile_errors.inc()
            logger.warning("%s/%s: %s: %s", namespace, name, type(error).__name__, error)
        except Exception:
            self._metrics.reconcile_errors.inc()
            logger.exception("%s/%s: the cycle failed", namespace, name)

    async def _delete(self, portfolio: Object) -> None:
        """What a portfolio owns goes with it; what it published may have to be deleted before."""
        world, images = self._world(portfolio), self._settings.images
        plan = plan_deletion(world, images=images, now=self._clock())
        if plan is None:
            return
        try:
            await self._write(portfolio, plan)
        except ApiError as error:
            if not error.is_of_an_ending_namespace:
                raise
            ended = plan_deletion(world, images=images, now=self._clock(), in_ending_namespace=True)
            assert ended is not None
            await self._write(portfolio, ended)

    def _world(self, portfolio: Object) -> World:
        namespace, name = portfolio["metadata"]["namespace"], portfolio["metadata"]["name"]
        own = {names.PORTFOLIO_LABEL: name}
        serving = portfolio["spec"].get("serving", {})
        selected = own
        if serving.get("mode") == "Adopt":
            selected = dict(serving.get("adopt", {}).get("selector", {}).get("matchLabels", {})) or own
        return World(
            portfolio=portfolio,
            jobs=_all(self._jobs, namespace, own),
            job_pods=_all(self._job_pods, namespace, own),
            pods=_all(self._pods, namespace, selected),
            nodes=None if self._nodes is None else {node["metadata"]["name"]: node for node in self._nodes.store.all()},
            namespace=None if self._spaces is None else self._spaces.store.get(namespace),
            endpoints=self.endpoints.all(namespace=namespace, labels=own),
            daemon_set=next(iter(_all(self._daemon_sets, namespace, own)), None),
            progress=self._progress.of(namespace),
            service=next(iter(_all(self._services, namespace, own)), None),
            capabilities=self._capabilities,
        )

    async def _write(self, portfolio: Object, plan: Plan) -> dict[str, ApiError]:
        """Write the plan; the endpoints that were refused."""
        namespace = portfolio["metadata"]["namespace"]
        jobs = collection("batch/v1", "jobs", namespace)
        if plan.finalizer:
            # Before anything that it is to protect.
            portfolio = await self._set_finalizer(portfolio, present=True)
        for name in plan.delete_jobs:
            self._may_write()
            await self._api.delete(f"{jobs}/{name}")
            for mirror in self._jobs:
                mirror.store.drop({"metadata": {"namespace": namespace, "name": name}})

        async def apply(document: Object) -> None:
            self._may_write()
            document["metadata"]["namespace"] = namespace
            written = await self._api.apply(document, plural=_PLURALS[document["kind"]])
            if document["kind"] == "ModelEndpoint":
                self.endpoints.put(written)
            elif document["kind"] == "Job":
                self._store_of_jobs(namespace).put(written)

        for document in plan.apply:
            if document["kind"] != "ModelEndpoint":
                await apply(document)
        refused = await write_each((each for each in plan.apply if each["kind"] == "ModelEndpoint"), apply)
        if plan.delete_daemon_set is not None:
            self._may_write()
            await self._api.delete(collection("apps/v1", "daemonsets", namespace) + f"/{plan.delete_daemon_set}")
        if plan.suspend_job is not None:
            self._may_write()
            name, suspend = plan.suspend_job
            await self._api.merge(f"{jobs}/{name}", {"spec": {"suspend": suspend}})
        status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if status != portfolio.get("status"):
            self._may_write()
            identity = {"name": portfolio["metadata"]["name"], "namespace": namespace}
            head = {"apiVersion": portfolio["apiVersion"], "kind": portfolio["kind"], "metadata": identity}
            written = await self._api.apply({**head, "status": status}, plural="modelportfolios", subresource="status")
            self.portfolios.put(written)
            portfolio = written
        for event in plan.events:
            if event.endpoint not in refused:
                await self._events.tell(self._namespace(namespace) if event.about_namespace else portfolio, event)
        if plan.finalizer is False:
            await self._set_finalizer(portfolio, present=False)
        return refused

    async def _set_finalizer(self, portfolio: Object, *, present: bool) -> Object:
        """Add or remove the operator's finalizer, and touch no other. Refused if the portfolio changed meanwhile."""
        self._may_write()
        metadata = portfolio["metadata"]
        finalizers = [entry for entry in metadata.get("finalizers") or () if entry != names.FINALIZER]
        if present:
            finalizers.append(names.FINALIZER)
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        path = collection(portfolio["apiVersion"], "modelportfolios", metadata["namespace"]) + f"/{metadata['name']}"
        written = await self._api.merge(path, patch)
        if present:
            self.portfolios.put(written)
        return written

    def _store_of_jobs(self, namespace: str) -> Store:
        watched = self._settings.namespaces
        return self._jobs[watched.index(namespace) if watched else 0].store

    def _namespace(self, name: str) -> Object:
        """The namespace as something to tell of; it has none itself, and its events go to the default one."""
        known = self._spaces.store.get(name) if self._spaces is not None else None
        return known or {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": ""}}

    def _may_write(self) -> None:
        if self.lease.epoch is None:
            raise LeaseLostError

    def _measure(self, namespace: str, name: str, plan: Plan) -> None:
        counts = plan.status.endpoints
        for state, value in (
            ("total", counts.total if counts else 0),
            ("available", counts.available if counts else 0),
            ("meeting_objectives", counts.meeting_objectives if counts else 0),
        ):
            self._metrics.endpoints.labels(namespace, name, state).set(value)
        for endpoint, decision in (plan.decisions or {}).items():
            said = (decision.action.value, decision.reason.value)
            if self._said.get((namespace, endpoint)) != said:
                self._said[namespace, endpoint] = said
                self._metrics.decisions.labels(*said).inc()
                logger.info("%s/%s: %s %s: %s", namespace, endpoint, *said, decision.message)
            violated = self._metrics.objective_violated.labels(namespace, name, endpoint)
            violated.set(decision.objectives_met is False)

    def _forget(self, portfolios: Sequence[Object]) -> None:
        """Drop what is remembered of portfolios that are gone."""
        kept = {(entry["metadata"]["namespace"], entry["metadata"]["name"]) for entry in portfolios}
        for key in self._states.keys() - kept:
            del self._states[key]
            for state in ("total", "available", "meeting_objectives"):
                self._metrics.endpoints.remove(*key, state)


def _all(mirrors: Sequence[Mirror], namespace: str, labels: dict[str, str]) -> list[Object]:
    return [thing for mirror in mirrors for thing in mirror.store.all(namespace=namespace, labels=labels)]
