"""Informer: lists one collection of the API server, then watches it into a cache.

A disconnected one keeps its last state and reports its age.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

import aiohttp

from edgefolio.kubernetes.backoff import Backoff
from edgefolio_operator.kube.cache import ObjectCache
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Object, part_of

logger = logging.getLogger(__name__)


class Informer:
    """Keeps in ``cache`` the objects of one kind, of one namespace or of all, that carry the labels of ``selector``.

    An optional one is synced, too, when the operator may not read its collection.
    """

    def __init__(
        self,
        api: Api,
        cache: ObjectCache,
        *,
        api_version: str,
        plural: str,
        namespace: str = "",
        selector: str = "",
        is_optional: bool = False,
    ) -> None:
        self.cache = cache
        self.synced = asyncio.Event()
        #: Whether the operator has not the right to read the collection, and does without.
        self.is_refused = False
        self._is_optional = is_optional
        self._api = api
        self._path = collection(api_version, plural, namespace)
        self._namespace = namespace
        self._selector = selector
        self._backoff = Backoff()
        #: The last resourceVersion listed or watched; a number since Kubernetes 1.35, and of etcd always.
        self._version = 0
        self._heard_at = time.monotonic()

    @property
    def title(self) -> str:
        """Path and selector."""
        return f"{self._path}?{self._selector}" if self._selector else self._path

    @property
    def silent_seconds(self) -> float:
        """Seconds since the API server's last event, bookmarks included."""
        return time.monotonic() - self._heard_at

    async def run(self) -> None:
        """List and watch until cancelled; failures are retried with backoff."""
        while True:
            try:
                await self._list_and_watch()
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                expired = isinstance(error, ApiError) and error.status == 410
                if not expired:
                    logger.warning("watching %s: %s: %s", self._path, type(error).__name__, error)
                if isinstance(error, ApiError) and error.reason == "BadRequest":
                    # A selector that the API server does not understand selects nothing, and must hold up nobody.
                    self.synced.set()
                if self._is_optional and isinstance(error, ApiError) and error.status == 403:
                    self.is_refused = True
                    self.synced.set()
            except Exception:
                # Whatever was answered: the other informers go on, and this one lists anew.
                expired = False
                logger.exception("watching %s failed", self._path)
            await asyncio.sleep(self._backoff.next_pause(is_failure=not expired))

    async def _list_and_watch(self) -> None:
        self._backoff.begin()
        things, version = await self._api.list(self._path, selector=self._selector)
        self._heard_at = time.monotonic()
        # A list older than the last watch event comes from an etcd backup: the cache is void.
        is_restored = int(version or 0) < self._version
        self._version = int(version or 0)
        self.cache.replace(things, namespace=self._namespace, version=None if is_restored else self._version)
        self.is_refused = False
        self.synced.set()
        while True:
            await self._watch()
            self._heard_at = time.monotonic()
            await asyncio.sleep(self._backoff.next_pause(is_failure=False))

    async def _watch(self) -> None:
        """Apply changes since the last version to the cache until the server ends the watch."""
        self._backoff.begin()
        events = self._api.watch(self._path, version=str(self._version), selector=self._selector)
        async with aclosing(events):
            async for kind, thing in events:
                self._heard_at = time.monotonic()
                self._version = _version_of(thing)
                if kind in ("ADDED", "MODIFIED"):
                    self.cache.put(thing)
                elif kind == "DELETED":
                    self.cache.delete(thing)


def _version_of(thing: Object) -> int:
    """The resourceVersion of a watched object. Raises ValueError if there is none: the list is then read anew."""
    version = part_of(thing, "metadata", "resourceVersion")
    if not isinstance(version, str):
        raise ValueError(f"a watched object has the resourceVersion {version!r}")
    return int(version)
