"""Rate-limited recorder of Kubernetes Events about portfolios and endpoints.

Each object has a token bucket of its own, and all together have one: a site in trouble must not fill the API server.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from edgefolio.specification.conditions import truncated
from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Object
from edgefolio_operator.labels import MANAGER

logger = logging.getLogger(__name__)

_BURST = 20.0
_PER_SECOND = 0.2
_BURST_IN_TOTAL = 200.0
_PER_SECOND_IN_TOTAL = 5.0


#: Interval at which full buckets are dropped.
_PRUNE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """A Kubernetes Event about the portfolio, its namespace, or the ``endpoint`` of that name.

    ``is_of_agents``: caused by what an agent reports, perhaps endlessly; such Events do not use up the others' quota.
    """

    reason: str
    message: str
    warning: bool = False
    about_namespace: bool = False
    endpoint: str | None = None
    is_of_agents: bool = False


class EventRecorder:
    """Writes events: 20 at once per object, then one in five seconds; the rest is only logged."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._buckets: dict[tuple[str, ...], TokenBucket] = {}
        self._pruned_at = clock()
        self._total = TokenBucket(burst=_BURST_IN_TOTAL, per_second=_PER_SECOND_IN_TOTAL, now=clock())

    async def record(self, about: Object, event: Event) -> bool:
        """Write ``event``, or log it if that is refused. Returns false if the API server does not answer at all."""
        metadata = about["metadata"]
        own = metadata.get("namespace")
        namespace = own or "default"
        logger.info("%s/%s: %s: %s", namespace, metadata["name"], event.reason, event.message)
        if not self._allowed((about["kind"], namespace, metadata["name"], "agents" if event.is_of_agents else "")):
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
                "uid": metadata.get("uid", ""),
                **({"namespace": own} if own else {}),
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason[:128],
            "message": truncated(event.message),
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
        if now - self._pruned_at >= _PRUNE_SECONDS:
            self._pruned_at = now
            self._buckets = {known: bucket for known, bucket in self._buckets.items() if not bucket.is_full(now)}
        if key not in self._buckets:
            self._buckets[key] = TokenBucket(burst=_BURST, per_second=_PER_SECOND, now=now)
        return self._buckets[key].take(now) and self._total.take(now)


class TokenBucket:
    """Allows ``burst`` at once, and ``per_second`` after that."""

    def __init__(self, *, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = burst
        self._filled_at = now

    def is_full(self, now: float) -> bool:
        """Whether it has all its tokens."""
        return self._tokens + (now - self._filled_at) * self._per_second >= self._burst

    def take(self, now: float) -> bool:
        """Take one token, if there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
