"""Informer: lists one collection of the API server, watches its changes, and keeps both in a cache.

One whose link is cut keeps what it saw last and says how old that is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing

import aiohttp

from edgefolio_operator.kube.cache import Change, ObjectCache
from edgefolio_operator.kube.client import Api, ApiError
from edgefolio_operator.kube.objects import Object

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0
_SHORTEST_WATCH_SECONDS = 1.0


class Informer:
    """Keeps an :class:`ObjectCache` equal to one collection, or to what of it carries the labels of ``selector``."""

    def __init__(
        self,
        api: Api,
        path: str,
        *,
        selector: str = "",
        on_change: Callable[[Change], None] = lambda _: None,
        transform: Callable[[Object], Object] | None = None,
    ) -> None:
        self.cache = ObjectCache(on_change, transform=transform)
        self.synced = asyncio.Event()
        self._path = path
        self._api = api
        self._selector = selector
        self._heard_at = time.monotonic()

    @property
    def title(self) -> str:
        """Path and selector."""
        return f"{self._path}?{self._selector}" if self._selector else self._path

    @property
    def silent_seconds(self) -> float:
        """Seconds since the API server was last heard, bookmarks included."""
        return time.monotonic() - self._heard_at

    async def run(self) -> None:
        """List and watch until cancelled; whatever goes wrong is tried again, slower each time."""
        pause = 1.0
        while True:
            try:
                things, version = await self._api.list(self._path, selector=self._selector)
                self._heard_at = time.monotonic()
                self.cache.replace(things)
                self.synced.set()
                pause = 1.0
                await self._watch(version)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                if isinstance(error, ApiError) and error.status == 410:
                    continue
                logger.warning("watching %s: %s: %s", self._path, type(error).__name__, error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _watch(self, version: str) -> None:
        while True:
            began = time.monotonic()
            async with aclosing(self._api.watch(self._path, version=version, selector=self._selector)) as changes:
                async for kind, thing in changes:
                    self._heard_at = time.monotonic()
                    version = thing["metadata"]["resourceVersion"]
                    if kind in ("ADDED", "MODIFIED"):
                        self.cache.put(thing)
                    elif kind == "DELETED":
                        self.cache.delete(thing)
            # The server has ended the watch in good order, after minutes. One that ends it at once is given a rest.
            self._heard_at = time.monotonic()
            if self._heard_at - began < _SHORTEST_WATCH_SECONDS:
                await asyncio.sleep(_SHORTEST_WATCH_SECONDS)
