"""Writer of plans to the API server; each step first checks the leadership."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar

from edgefolio.specification.conditions import truncated
from edgefolio.specification.resource import API_VERSION
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.informers import Informers
from edgefolio_operator.cluster_state.name_conflicts import NameConflicts
from edgefolio_operator.cluster_state.snapshot import is_endpoint_of_ours, is_own_job
from edgefolio_operator.kube.bulk_apply import apply_each
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.event_recorder import Event, EventRecorder
from edgefolio_operator.kube.objects import Object, annotations_of, is_controlled_by
from edgefolio_operator.kube.owned_objects import ForeignObjectError, OwnedObjects, PassingObjectError
from edgefolio_operator.ownership import display_name, key_of
from edgefolio_operator.reconcilers.plan import ReconcilePlan
from edgefolio_operator.reconcilers.status_resync import StatusResync

logger = logging.getLogger(__name__)

#: Objects that make no sense without another one, by what they need.
_NEEDED_BY = {"ServiceAccount": "DaemonSet", "RoleBinding": "DaemonSet", "ConfigMap": "Job"}
#: Time between two writes of one object that is not watched.
_UNWATCHED_SECONDS = 30.0
#: Kinds whose changes by others are set right.
_CORRECTED = ("DaemonSet", "RoleBinding", "Service", "ServiceAccount")


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
        self._objects = OwnedObjects(api)
        self._unwatched: dict[tuple[str, str], float] = {}
        self._conflicts: dict[tuple[str, str], NameConflicts] = {}
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
            job = self._informers.held("Job", namespace, name)
            if job is None or not is_own_job(job, portfolio):
                continue  # gone, and its name is somebody else's by now
            await self._objects.delete(f"{jobs}/{name}", job)
            self._informers.drop_job(namespace, name)
        for name in plan.delete_endpoints:
            await self.delete_endpoint(namespace, name)
        await self._apply_workload(portfolio, [entry for entry in plan.apply if entry["kind"] != "ModelEndpoint"])
        refused = await apply_each(
            (document for document in plan.apply if document["kind"] == "ModelEndpoint"),
            lambda document: self._apply_endpoint(portfolio, document),
        )
        if plan.delete_daemon_set is not None:
            self._check()
            path = collection("apps/v1", "daemonsets", namespace) + f"/{plan.delete_daemon_set}"
            daemon_set = self._informers.held("DaemonSet", namespace, plan.delete_daemon_set)
            if daemon_set is not None and is_controlled_by(daemon_set, portfolio):
                await self._objects.delete(path, daemon_set)
        if plan.suspend_job is not None:
            self._check()
            name, suspend = plan.suspend_job
            job = self._informers.held("Job", namespace, name)
            if job is not None and is_own_job(job, portfolio):
                patch = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": {"suspend": suspend}}
                await self._api.merge(f"{jobs}/{name}", patch)
        status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if status != portfolio.get("status") or self._status_resync.is_due(key):
            self._check()
            identity = {key: portfolio["metadata"][key] for key in ("name", "namespace", "uid")}
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
        path = f"{collection(API_VERSION, 'modelendpoints', namespace)}/{name}"
        endpoint = self._informers.held("ModelEndpoint", namespace, name)
        if endpoint is None or not is_endpoint_of_ours(endpoint):
            return
        await self._objects.delete(path, endpoint)
        self._informers.endpoints.delete({"metadata": {"namespace": namespace, "name": name}})

    async def release(self, portfolio: Object) -> None:
        """Take the operator's finalizer off ``portfolio``: nobody will be there to do what it stands for."""
        await self._set_finalizer(portfolio, present=False)

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
        self._conflicts.pop(key, None)
        self._informers.drift.forget(*key)

    def conflicts(self, key: tuple[str, str]) -> tuple[str, ...]:
        """Which names of a portfolio's objects somebody else has, as sentences with the remedy."""
        found = self._conflicts.get(key)
        return () if found is None else found.messages

    async def _apply_workload(self, portfolio: Object, documents: Sequence[Object]) -> None:
        """Write ``documents`` in their order; where a name is somebody else's, not what needs that object either."""
        key = key_of(portfolio)
        conflicts = self._conflicts.setdefault(key, NameConflicts())
        conflicts.keep_only(documents)
        unusable: set[str] = set()
        for document in documents:
            if document["kind"] in unusable:
                continue
            if not conflicts.is_waiting(document):
                try:
                    await self._apply(portfolio, document)
                    conflicts.clear(document)
                    continue
                except ForeignObjectError as conflict:
                    conflicts.add(document, str(conflict))
                except PassingObjectError as error:
                    logger.info("%s: %s", display_name(key), error)
            unusable.add(_NEEDED_BY.get(document["kind"], ""))

    async def _apply_endpoint(self, portfolio: Object, document: Object) -> None:
        try:
            await self._apply(portfolio, document)
        except ForeignObjectError as conflict:
            raise ApiError(409, "Conflict", str(conflict)) from conflict
        except PassingObjectError as error:
            raise ApiError(409, "Conflict", str(error)) from error

    async def _apply(self, portfolio: Object, document: Object) -> None:
        self._check()
        namespace, name = key_of(portfolio)[0], document["metadata"]["name"]
        document["metadata"]["namespace"] = namespace
        held = self._informers.held(document["kind"], namespace, name)
        if document["kind"] == "ConfigMap" and not self._is_due(document):
            return
        written = await self._objects.write(document, held=held)
        self._informers.put(written)
        if document["kind"] not in _CORRECTED:
            return
        self._informers.drift.written(written)
        if held is not None and is_corrected(held, document, written):
            text = f"{document['kind']} {name} was changed by somebody else; what the operator had set is restored."
            await self._events.record(portfolio, Event(reason=reasons.DRIFT_CORRECTED, message=text))

    def _is_due(self, document: Object) -> bool:
        """Whether a ConfigMap, which is not watched, was not written just now; notes that it is."""
        now, uid = time.monotonic(), str(document["metadata"]["ownerReferences"][0]["uid"])
        known = {key: at for key, at in self._unwatched.items() if now - at < _UNWATCHED_SECONDS}
        key = uid, str(document["metadata"]["name"])
        self._unwatched = {**known, key: known.get(key, now)}
        return key not in known

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


def is_corrected(held: Object, document: Object, written: Object) -> bool:
    """Whether writing the ``document`` that was applied before changed what was stored."""
    same = annotations_of(held).get(labels.HASH_ANNOTATION) == annotations_of(document).get(labels.HASH_ANNOTATION)
    return same and held["metadata"].get("resourceVersion") != written["metadata"].get("resourceVersion")
