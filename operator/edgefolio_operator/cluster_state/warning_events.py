"""Poller of warning Events about objects that are stuck: only Events say why a DaemonSet has no pods.

Only objects that somebody waits for are asked about, and not all of a large site's at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import aiohttp

from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Object

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_READS = 4.0
#: Objects asked about in one round; each is one request.
_MOST_ASKED = 20
#: Objects of one portfolio: what keeps one pod from starting keeps the others as a rule.
_MOST_OF_ONE = 3


@dataclass(frozen=True, kw_only=True)
class ObjectWarning:
    """The newest warning about one object."""

    reason: str
    message: str


class WarningReader:
    """Reads the warnings about the objects that were named last."""

    def __init__(
        self,
        api: Api,
        *,
        is_active: Callable[[], bool],
        changed: Callable[[], None],
        seconds: float = SECONDS_BETWEEN_READS,
    ) -> None:
        self._api, self._is_active, self._changed = api, is_active, changed
        self._seconds = seconds
        self._wanted: dict[tuple[str, str], tuple[str, ...]] = {}
        self._found: dict[str, ObjectWarning] = {}
        self._refused = False

    def want(self, key: tuple[str, str], uids: Iterable[str]) -> None:
        """Ask about these objects of the portfolio ``key`` from now on, and no others of it."""
        chosen = tuple(uids)[:_MOST_OF_ONE]
        if chosen:
            self._wanted[key] = chosen
        else:
            self._wanted.pop(key, None)

    def of(self, key: tuple[str, str]) -> Mapping[str, ObjectWarning]:
        """What is known of the objects of a portfolio, by uid."""
        return {uid: self._found[uid] for uid in self._wanted.get(key, ()) if uid in self._found}

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            if self._is_active():
                await self.read()

    async def read(self) -> None:
        """Ask about each wanted object once, those that were not asked about before first."""
        asked = [(key[0], uid) for key, uids in self._wanted.items() for uid in uids]
        asked.sort(key=lambda entry: entry[1] in self._found)
        before = self._found
        known = {uid for _, uid in asked}
        found = {uid: warning for uid, warning in before.items() if uid in known}
        for namespace, uid in asked[:_MOST_ASKED]:
            try:
                warning = await self._newest(namespace, uid)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                if not self._refused:
                    logger.warning("Events of %s are not read: %s", namespace, error or type(error).__name__)
                self._refused = True
                break
            self._refused = False
            if warning is not None:
                found[uid] = warning
        self._found = found
        if found != before:
            self._changed()

    async def _newest(self, namespace: str, uid: str) -> ObjectWarning | None:
        path = collection("v1", "events", namespace)
        answer = await self._api.get(path, fields=f"involvedObject.uid={uid},type=Warning")
        events: list[Object] = list(answer.get("items") or ())
        if not events:
            return None
        newest = max(events, key=_time)
        return ObjectWarning(reason=str(newest.get("reason") or ""), message=str(newest.get("message") or ""))


def _time(event: Object) -> str:
    """Kubernetes writes times in one format, so that they sort as texts."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next(filter(None, times), ""))
