"""What the API server holds, kept in memory: a list, and then its changes.

A mirror whose link is cut keeps what it saw last and says how old that is. Fields that nobody here reads are dropped on
the way in: on a site with many pods they would be most of the operator's memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

import aiohttp

from edgefolio_operator.kube.client import Api, ApiError

Object = dict[str, Any]
logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0
_SHORTEST_WATCH_SECONDS = 1.0


class Store:
    """Objects by namespace and name, as ``keep`` leaves them.

    ``changed`` is called after every change, ``asked`` if what people write was changed: spec, annotations, the end.
    """

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        *,
        asked: Callable[[], None] = lambda: None,
        keep: Callable[[Object], Object] | None = None,
    ) -> None:
        self._objects: dict[tuple[str, str], Object] = {}
        self._changed = changed
        self._asked = asked
        self._keep = slim if keep is None else keep

    def put(self, thing: Object) -> None:
        """Add or replace ``thing``, unless what is held is newer."""
        key = _key(thing)
        held = self._objects.get(key)
        if held is not None and _version(held) > _version(thing) and _uid(held) == _uid(thing):
            return
        self._objects[key] = self._keep(thing)
        self._changed()
        if held is None or _wish(held) != _wish(thing):
            self._asked()

    def drop(self, thing: Object) -> None:
        """Forget ``thing``."""
        if self._objects.pop(_key(thing), None) is not None:
            self._changed()

    def replace(self, things: Iterable[Object]) -> None:
        """Hold exactly ``things``."""
        self._objects = {_key(thing): self._keep(thing) for thing in things}
        self._changed()

    def merge(self, things: Iterable[Object], *, version: str) -> int:
        """Make up for what was missed: ``things`` is all that there was at ``version``. Returns how much that was.

        Changes after that version may have been seen already; they stand.
        """
        listed = {_key(thing): thing for thing in things}
        at = int(version) if version.isdigit() else 0
        newer = [
            thing
            for key, thing in listed.items()
            if key not in self._objects or _version(self._objects[key]) < _version(thing)
        ]
        gone = [held for key, held in self._objects.items() if key not in listed and _version(held) <= at]
        for thing in newer:
            self.put(thing)
        for held in gone:
            self.drop(held)
        return len(newer) + len(gone)

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object called ``name``."""
        return self._objects.get((namespace, name))

    def all(self, *, namespace: str | None = None, labels: dict[str, str] | None = None) -> list[Object]:
        """Objects in ``namespace`` that carry ``labels``, by name."""
        wanted = (labels or {}).items()
        found = [
            (key, thing)
            for key, thing in self._objects.items()
            if (namespace is None or key[0] == namespace) and wanted <= (thing["metadata"].get("labels") or {}).items()
        ]
        return [thing for _, thing in sorted(found, key=lambda entry: entry[0])]

    def __len__(self) -> int:
        return len(self._objects)


class Mirror:
    """A :class:`Store` that follows one collection of the API server."""

    def __init__(
        self,
        api: Api,
        path: str,
        *,
        selector: str = "",
        changed: Callable[[], None] = lambda: None,
        keep: Callable[[Object], Object] | None = None,
    ) -> None:
        self.store = Store(changed, keep=keep)
        self.synced = asyncio.Event()
        self._path = path
        self._api = api
        self._selector = selector
        self._heard_at = time.monotonic()

    @property
    def title(self) -> str:
        """What it follows, told from other parts of the same collection."""
        return f"{self._path}?{self._selector}" if self._selector else self._path

    @property
    def silent_seconds(self) -> float:
        """Seconds since the API server was last heard, bookmarks included."""
        return time.monotonic() - self._heard_at

    async def run(self) -> None:
        """Follow the collection until cancelled; whatever goes wrong is tried again, slower each time."""
        pause = 1.0
        while True:
            try:
                things, version = await self._api.list(self._path, selector=self._selector)
                self._heard_at = time.monotonic()
                self.store.replace(things)
                self.synced.set()
                pause = 1.0
                await self._follow(version)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                if isinstance(error, ApiError) and error.status == 410:
                    continue
                logger.warning("watching %s: %s: %s", self._path, type(error).__name__, error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _follow(self, version: str) -> None:
        while True:
            began = time.monotonic()
            async with aclosing(self._api.watch(self._path, version=version, selector=self._selector)) as changes:
                async for kind, thing in changes:
                    self._heard_at = time.monotonic()
                    version = thing["metadata"]["resourceVersion"]
                    if kind in ("ADDED", "MODIFIED"):
                        self.store.put(thing)
                    elif kind == "DELETED":
                        self.store.drop(thing)
            # The server has ended the watch in good order, after minutes. One that ends it at once is given a rest.
            self._heard_at = time.monotonic()
            if self._heard_at - began < _SHORTEST_WATCH_SECONDS:
                await asyncio.sleep(_SHORTEST_WATCH_SECONDS)


def slim(thing: Object) -> Object:
    """``thing`` without the fields that nobody here reads."""
    metadata = {key: value for key, value in thing["metadata"].items() if key != "managedFields"}
    kept = {**thing, "metadata": metadata}
    if thing.get("kind") == "Pod":
        kept["spec"] = {"nodeName": thing["spec"].get("nodeName")}
        status = thing.get("status", {})
        kept["status"] = {key: status[key] for key in ("phase", "conditions", "containerStatuses") if key in status}
    elif thing.get("kind") == "Node":
        kept.pop("spec", None)
        status = thing.get("status", {})
        total = status.get("allocatable") or {}
        kept["status"] = {
            "conditions": status.get("conditions", []),
            "allocatable": {key: total[key] for key in ("cpu", "memory") if key in total},
        }
    elif thing.get("kind") in ("DaemonSet", "Service"):
        kept.pop("spec", None)
        kept.pop("status", None)
    elif thing.get("kind") == "Job":
        kept["spec"] = {"suspend": thing["spec"].get("suspend", False)}
    return kept


def _key(thing: Object) -> tuple[str, str]:
    return thing["metadata"].get("namespace") or "", thing["metadata"]["name"]


def _uid(thing: Object) -> str:
    return str(thing["metadata"].get("uid", ""))


def _wish(thing: Object) -> tuple[object, ...]:
    metadata = thing["metadata"]
    return tuple(metadata.get(key) for key in ("uid", "generation", "annotations", "deletionTimestamp"))


def _version(thing: Object) -> int:
    version = str(thing["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdigit() else 0
