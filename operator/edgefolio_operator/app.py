"""The composition root: kopf starts and stops the controller, handles signals, and answers the liveness probe.

It watches nothing: docs/decisions/watching-own-kinds.md.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import kopf
from prometheus_client import REGISTRY, start_http_server

from edgefolio.kubernetes.access import Access
from edgefolio_operator.kube.client import Api
from edgefolio_operator.kube.liveness import fault_of
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.reconcilers.controller import Controller
from edgefolio_operator.settings import Settings

logger = logging.getLogger(__name__)

#: Within the pod's grace period.
_RELEASE_SECONDS = 10.0


class Backoffs:
    """Endless backoff delays in seconds: kopf reads the API groups once, and stops the process if that fails."""

    def __iter__(self) -> Iterator[float]:
        return chain((1.0, 1.0, 2.0, 3.0), repeat(5.0))


@dataclass(frozen=True, kw_only=True)
class Login(kopf.ConnectionInfo):  # type: ignore[misc]
    """The operator's credentials in kopf's form."""

    tls: ssl.SSLContext

    def as_ssl_context(self) -> ssl.SSLContext:
        """Trust and client certificate."""
        return self.tls


class App:
    """The handlers of one operator, in a kopf registry of their own."""

    def __init__(self, settings: Settings) -> None:
        self.registry = kopf.OperatorRegistry()
        self._settings = settings
        self._stack = AsyncExitStack()
        self._access: Access | None = None
        self._controller: Controller | None = None
        self._task: asyncio.Task[None] | None = None
        kopf.on.startup(registry=self.registry)(self._start)
        kopf.on.cleanup(registry=self.registry)(self._stop)
        kopf.on.login(registry=self.registry)(self._login)
        # A fault is an answer; kopf would retry the probe for minutes while the kubelet waits.
        kopf.on.probe(id="cycle", errors=kopf.ErrorsMode.PERMANENT, registry=self.registry)(self._probe)

    async def _start(self, *, settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True  # the kinds are known; reading all definitions would need more rights
        settings.posting.enabled = False
        settings.networking.request_timeout = 20
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = Backoffs()
        self._access = Access.found()
        metrics = Metrics(REGISTRY)
        if self._settings.metrics_port:
            server, thread = start_http_server(self._settings.metrics_port)
            self._stack.callback(thread.join)
            self._stack.callback(server.server_close)
            self._stack.callback(server.shutdown)
        api = await self._stack.enter_async_context(Api(self._access))
        api.writes = lambda kind: metrics.writes.labels(kind).inc()
        self._controller = Controller(api, self._settings, metrics)
        self._task = asyncio.create_task(self._controller.run())
        self._task.add_done_callback(log_failure)

    async def _stop(self, **_: Any) -> None:
        if self._controller is not None and self._task is not None and not self._task.done():
            try:
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._controller.release_portfolios()
            except Exception:
                logger.exception("the portfolios were not released")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stack.aclose()

    async def _login(self, **_: Any) -> Login:
        assert self._access is not None
        found = self._access.current()
        return Login(server=found.server, token=found.token, tls=found.tls or ssl.create_default_context())

    async def _probe(self, **_: Any) -> float:
        """Seconds since the last good cycle. Raises when that is too long ago, which makes the probe fail."""
        if self._controller is None or (self._task is not None and self._task.done()):
            raise RuntimeError("the controller does not run")
        pulse = self._controller.pulse
        if (fault := fault_of(pulse)) is not None:
            raise RuntimeError(fault)
        return round(pulse.cycle, 1)


def log_failure(task: asyncio.Task[None]) -> None:
    """Log why ``task`` ended by itself; the probe only says that it did."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("the controller stopped", exc_info=error)
