"""Kubernetes Events of a portfolio, capped: a site in trouble must not fill the API server with its story."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp

from edgefolio_operator.api import Api, ApiError, collection
from edgefolio_operator.names import MANAGER
from edgefolio_operator.reconciling import Event

logger = logging.getLogger(__name__)

_BURST = 20.0
_PER_SECOND = 0.2


class EventSink:
    """Writes events: 20 at once per object, then one in five seconds; the rest is only logged."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._budgets: dict[tuple[str, str], tuple[float, float]] = {}

    async def tell(self, about: dict[str, Any], event: Event) -> None:
        """Write ``event``; one that cannot be written is logged, never an error."""
        metadata = about["metadata"]
        own = metadata.get("namespace")
        namespace = own or "default"
        logger.info("%s/%s: %s: %s", namespace, metadata["name"], event.reason, event.message)
        if not self._allowed((namespace, metadata["name"])):
            return
        now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        document = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                **({"namespace": own} if own else {}),
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason[:128],
            "message": event.message[:1024],
            "source": {"component": MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.create(collection("v1", "events", namespace), document)
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("an event was not written: %s", error)

    def _allowed(self, key: tuple[str, str]) -> bool:
        now = self._clock()
        left, seen = self._budgets.get(key, (_BURST, now))
        left = min(_BURST, left + (now - seen) * _PER_SECOND)
        self._budgets[key] = (left - 1 if left >= 1 else left, now)
        return left >= 1
