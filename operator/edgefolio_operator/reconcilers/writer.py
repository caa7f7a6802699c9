"""Writer of plans to the API server; each step first checks the leadership."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar

from edgefolio.specification.conditions import truncated
from edgefolio.specification.resource import API_VERSION
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.informers import Informers
from edgefolio_operator.kube.bulk_apply import apply_each
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.event_recorder import Event, EventRecorder
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.ownership import key_of
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.status_resync import StatusResync

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


#: The epoch of the plan that is being written.
_PLANNED_EPOCH: ContextVar[int | None] = ContextVar("planned_epoch", default=None)


class LeaseLostError(Exception):
    """Another operator leads, or this one under another epoch: nothing more of a plan may be written."""


class PlanWriter:
    """Writes plans to the API server and, for the next plan, into the caches."""

    def __init__(
        self,
        api: Api,
        *,
        informers: Informers,
        epoch: Callable[[], int | None],
    ) -> None:
        self._api = api
        self._informers = informers
        self._epoch = epoch
        self._events = EventRecorder(api)
        self._status_resync = StatusResync()
        self._refusals: dict[tuple[str, str], str] = {}

    async def write(self, portfolio: Object, plan: ReconcilePlan, *, epoch: int) -> Mapping[str, ApiError]:
        """Write ``plan``, made under ``epoch``; returns the refused endpoints, which keep their previous orders.

        Raises :class:`LeaseLostError`, ApiError and what aiohttp raises.
        """
        token = _PLANNED_EPOCH.set(epoch)
        try:
            return await self._write(portfolio, plan)
        finally:
            _PLANNED_EPOCH.reset(token)

    async def _write(self, portfolio: Object, plan: ReconcilePlan) -> Mapping[str, ApiError]:
        key = namespace, _ = key_of(portfolio)
        jobs = collection("batch/v1", "jobs", namespace)
        if plan.finalizer:
            # Before anything that it protects.
            portfolio = await self._set_finalizer(portfolio, present=True)
        for name in plan.delete_jobs:
            self._check()
            await self._api.delete(f"{jobs}/{name}")
            self._informers.drop_job(namespace, name)
        for name in plan.delete_endpoints:
            await self.delete_endpoint(namespace, name)
        for document in plan.apply:
            if document["kind"] != "ModelEndpoint":
                await self._apply(document, namespace)
        refused = await apply_each(
            (document for document in plan.apply if document["kind"] == "ModelEndpoint"),
            lambda document: self._apply(document, namespace),
        )
        if plan.delete_daemon_set is not None:
            self._check()
            await self._api.delete(collection("apps/v1", "daemonsets", namespace) + f"/{plan.delete_daemon_set}")
        if plan.suspend_job is not None:
            self._check()
            name, suspend = plan.suspend_job
            await self._api.merge(f"{jobs}/{name}", {"spec": {"suspend": suspend}})
        status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if status != portfolio.get("status") or self._status_resync.is_due(key):
            self._check()
            identity = {"name": portfolio["metadata"]["name"], "namespace": namespace}
            head = {"apiVersion": portfolio["apiVersion"], "kind": portfolio["kind"], "metadata": identity}
            portfolio = await self._api.apply(
                {**head, "status": status}, plural="modelportfolios", subresource="status"
            )
            self._informers.portfolios.put(dict(portfolio))
            self._status_resync.written(key)
        await self._tell(portfolio, [event for event in plan.events if event.endpoint not in refused])
        if plan.finalizer is False:
            await self._set_finalizer(portfolio, present=False)
        return refused

    async def delete_endpoint(self, namespace: str, name: str) -> None:
        """Delete a ModelEndpoint, and forget it."""
        self._check()
        await self._api.delete(f"{collection(API_VERSION, 'modelendpoints', namespace)}/{name}")
        self._informers.endpoints.delete({"metadata": {"namespace": namespace, "name": name}})

    async def refused(self, portfolio: Object, error: ApiError) -> None:
        """Record a refusal as an event, once per message: only this names a quota or a policy."""
        key, message = key_of(portfolio), str(error)
        if not 400 <= error.status < 500 or error.status in (404, 409, 429) or self._refusals.get(key) == message:
            return
        self._refusals[key] = message
        await self._events.record(
            portfolio, Event(reason=reasons.WRITE_REFUSED, message=truncated(message), warning=True)
        )

    async def failed(self, portfolio: Object, error: Exception) -> None:
        """Record a fault of the operator as an event, once per message: nothing else tells the user."""
        key, message = key_of(portfolio), f"{type(error).__name__}: {error}"
        if self._refusals.get(key) == message:
            return
        self._refusals[key] = message
        text = f"Nothing is done for this ModelPortfolio: {message}. Look at the log of the operator."
        await self._events.record(
            portfolio, Event(reason=reasons.RECONCILE_FAILED, message=truncated(text), warning=True)
        )

    def forget(self, key: tuple[str, str]) -> None:
        """A portfolio is gone."""
        self._status_resync.forget(key)
        self._refusals.pop(key, None)

    async def _apply(self, document: Object, namespace: str) -> None:
        self._check()
        document["metadata"]["namespace"] = namespace
        written = await self._api.apply(document, plural=_PLURALS[document["kind"]])
        if document["kind"] == "ModelEndpoint":
            self._informers.endpoints.put(written)
        elif document["kind"] == "Job":
            self._informers.put_job(written)

    async def _tell(self, portfolio: Object, events: Sequence[Event]) -> None:
        namespace, _ = key_of(portfolio)
        for event in events:
            about: Object | None = portfolio
            if event.about_namespace:
                about = self._informers.namespace(namespace)
            elif event.endpoint is not None:
                about = self._informers.endpoints.get(event.endpoint, namespace)
            if about is not None and not await self._events.record(about, event):
                return  # a hung API server must not block the plan

    async def _set_finalizer(self, portfolio: Object, *, present: bool) -> Object:
        """Add or remove the operator's finalizer only. Refused if the portfolio changed meanwhile."""
        self._check()
        metadata = portfolio["metadata"]
        finalizers = [entry for entry in metadata.get("finalizers") or () if entry != labels.FINALIZER]
        if present:
            finalizers.append(labels.FINALIZER)
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        path = collection(portfolio["apiVersion"], "modelportfolios", metadata["namespace"]) + f"/{metadata['name']}"
        written = await self._api.merge(path, patch)
        if present:
            self._informers.portfolios.put(written)
        return written

    def _check(self) -> None:
        # Leading again is not enough: another operator may have led between plan and write.
        epoch, planned = self._epoch(), _PLANNED_EPOCH.get()
        if epoch is None or planned not in (None, epoch):
            raise LeaseLostError
