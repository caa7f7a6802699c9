"""Kubernetes Events of portfolios and endpoints, capped: a site in trouble must not fill the API server with its story.

Each object has a budget of its own, and all together have one.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.labels import MANAGER
from edgefolio_operator.status.event_messages import Event

logger = logging.getLogger(__name__)

_BURST = 20.0
_PER_SECOND = 0.2
_BURST_OF_ALL = 200.0
_PER_SECOND_OF_ALL = 5.0


class EventSink:
    """Writes events: 20 at once per object, then one in five seconds; the rest is only logged."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._budgets: dict[tuple[str, ...], Budget] = {}
        self._of_all = Budget(burst=_BURST_OF_ALL, per_second=_PER_SECOND_OF_ALL, now=clock())

    async def tell(self, about: Mapping[str, Any], event: Event) -> bool:
        """Write ``event``, or log it if that is refused. Returns false if the API server does not answer at all."""
        metadata = about["metadata"]
        own = metadata.get("namespace")
        namespace = own or "default"
        logger.info("%s/%s: %s: %s", namespace, metadata["name"], event.reason, event.message)
        if not self._allowed((about["kind"], namespace, metadata["name"])):
            return True
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
        except ApiError as error:
            logger.warning("an event was not written: %s", error)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("an event was not written: %s", type(error).__name__)
            return False
        return True

    def _allowed(self, key: tuple[str, ...]) -> bool:
        now = self._clock()
        # A budget that is whole again need not be remembered.
        self._budgets = {known: budget for known, budget in self._budgets.items() if not budget.is_whole(now)}
        own = self._budgets.setdefault(key, Budget(burst=_BURST, per_second=_PER_SECOND, now=now))
        return own.spend(now) and self._of_all.spend(now)


class Budget:
    """So many at once, and so many a second after that."""

    def __init__(self, *, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._seen = now

    def is_whole(self, now: float) -> bool:
        """Whether nothing of it is missing."""
        return self._left + (now - self._seen) * self._per_second >= self._burst

    def spend(self, now: float) -> bool:
        """Take one, if there is one."""
        self._left = min(self._burst, self._left + (now - self._seen) * self._per_second)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
