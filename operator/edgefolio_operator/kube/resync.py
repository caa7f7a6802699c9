"""Our own two kinds, listed at the start and every few minutes: what kopf delivered is compared with what is.

Before the first cycle everything must be known: a portfolio that is not seen yet may be the older claimant of a pod,
and an endpoint without its portfolio would be taken for one that was left behind. Later, a watch that died silently is
found out: what it missed is made up for, and two rounds with something missed are a reason to start anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

import aiohttp

from edgefolio_operator.kube.cache import ObjectCache
from edgefolio_operator.kube.client import Api, ApiError

logger = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
#: An event may be under way when the list is read; after this long it has come.
GRACE_SECONDS = 10.0
_DEAF_ROUNDS = 2


class Resync:
    """Lists the collections of ``stores`` (by path)."""

    def __init__(self, api: Api, stores: Mapping[str, ObjectCache]) -> None:
        self._api = api
        self._stores = stores
        self._missed_rounds = dict.fromkeys(stores, 0)

    @property
    def deaf(self) -> tuple[str, ...]:
        """Paths of the collections whose watch delivers nothing any more."""
        return tuple(path for path, rounds in self._missed_rounds.items() if rounds >= _DEAF_ROUNDS)

    async def first(self) -> None:
        """List everything, however long that takes."""
        for path, store in self._stores.items():
            while True:
                try:
                    things, version = await self._api.list(path)
                    break
                except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    logger.warning("listing %s: %s: %s", path, type(error).__name__, error)
                    await asyncio.sleep(2.0)
            store.merge(things, version=version)

    async def run(self) -> None:
        """List again and again until cancelled."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS * random.uniform(0.9, 1.1))
            for path in self._stores:
                try:
                    await self.once(path)
                except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    logger.warning("listing %s: %s: %s", path, type(error).__name__, error)

    async def once(self, path: str, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Compare one collection; a round without anything missed acquits the watch."""
        things, version = await self._api.list(path)
        await asyncio.sleep(grace_seconds)
        missed = self._stores[path].merge(things, version=version)
        self._missed_rounds[path] = self._missed_rounds[path] + 1 if missed else 0
        if missed:
            logger.error("the watch of %s missed %d changes", path, missed)
