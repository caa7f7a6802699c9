"""What kopf does here: it watches our own two kinds, starts and stops the controller, and answers the liveness probe.

The handlers only note what kopf saw; everything is decided in the controller's cycle, from what is. Event handlers
leave no finalizer and no annotation on anybody's object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import chain, repeat
from typing import Any

import kopf
from prometheus_client import REGISTRY, start_http_server

from edgefolio_operator.kube.cache import ObjectCache
from edgefolio_operator.kube.client import Access, Api
from edgefolio_operator.kube.kopf_settings import NothingToCompare
from edgefolio_operator.kube.liveness import fault_of
from edgefolio_operator.labels import GROUP, VERSION
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.reconcilers.controller import Controller
from edgefolio_operator.settings import Settings

logger = logging.getLogger(__name__)


class Backoffs:
    """Seconds between two attempts, for ever: kopf would give up a watch after some attempts, and with it its kind."""

    def __iter__(self) -> Iterator[float]:
        return chain((1.0, 1.0, 2.0, 3.0), repeat(5.0))


class Handlers:
    """kopf's handlers of one operator, in a registry of their own."""

    def __init__(self, settings: Settings) -> None:
        self.registry = kopf.OperatorRegistry()
        self._settings = settings
        self._stack = AsyncExitStack()
        self._controller: Controller | None = None
        self._task: asyncio.Task[None] | None = None
        kopf.on.startup(registry=self.registry)(self._start)
        kopf.on.cleanup(registry=self.registry)(self._stop)
        kopf.on.login(registry=self.registry)(self._login)
        # A fault is an answer; kopf would try the probe again for minutes and let the kubelet wait meanwhile.
        kopf.on.probe(id="cycle", errors=kopf.ErrorsMode.PERMANENT, registry=self.registry)(self._probe)
        kopf.on.event(GROUP, VERSION, "modelportfolios", registry=self.registry)(self._portfolio_seen)
        kopf.on.event(GROUP, VERSION, "modelendpoints", registry=self.registry)(self._endpoint_seen)

    async def _start(self, *, settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True  # the kinds are known; reading all definitions would need more rights
        settings.posting.enabled = False
        settings.watching.client_timeout = 240
        settings.watching.server_timeout = 240
        settings.watching.connect_timeout = 10
        settings.networking.request_timeout = 20
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = Backoffs()
        settings.persistence.finalizer = f"{GROUP}/operator"
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
        settings.persistence.diffbase_storage = NothingToCompare(prefix=GROUP)
        metrics = Metrics(REGISTRY)
        if self._settings.metrics_port:
            server, thread = start_http_server(self._settings.metrics_port)
            self._stack.callback(thread.join)
            self._stack.callback(server.server_close)
            self._stack.callback(server.shutdown)
        api = await self._stack.enter_async_context(Api(Access.found()))
        api.writes = lambda kind: metrics.writes.labels(kind).inc()
        self._controller = Controller(api, self._settings, metrics)
        self._task = asyncio.create_task(self._controller.run())

    async def _stop(self, **_: Any) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stack.aclose()

    async def _login(self, **kwargs: Any) -> Any:
        # kopf's own two ways in; with the official client installed it would load all of it.
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    async def _probe(self, **_: Any) -> float:
        """Seconds since the last good cycle. Raises when that is too long ago, which makes the probe fail."""
        if self._controller is None or (self._task is not None and self._task.done()):
            raise RuntimeError("the controller does not run")
        pulse = self._controller.pulse
        if (fault := fault_of(pulse)) is not None:
            raise RuntimeError(fault)
        return round(pulse.cycle, 1)

    async def _portfolio_seen(self, *, event: Any, **_: Any) -> None:
        self._note(self._running.portfolios, event)

    async def _endpoint_seen(self, *, event: Any, **_: Any) -> None:
        self._note(self._running.endpoints, event)

    @property
    def _running(self) -> Controller:
        assert self._controller is not None
        return self._controller

    def _note(self, cache: ObjectCache, event: Any) -> None:
        thing = dict(event["object"])
        if event["type"] == "DELETED":
            cache.delete(thing)
        else:
            cache.put(thing)
