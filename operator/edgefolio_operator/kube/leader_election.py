"""Leader election by a Lease, with an epoch that grows with every change of its holder.

A paused operator (a frozen process, a cut link) wakes up believing that it still leads. It stops by
itself, because it asks the clock before each write; and if it does not, the API server refuses it: an endpoint's epoch
never falls.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp

from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.objects import Document, Object

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15
RENEW_SECONDS = 5.0


class LeaderElection:
    """Takes the Lease and renews it while :meth:`run` runs; ``changed`` is called when it was taken."""

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        identity: str,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._path = collection("coordination.k8s.io/v1", "leases", namespace)
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._changed = changed
        self._clock = clock
        self._held_until = float("-inf")
        self._epoch = 0
        #: Version of another holder's lease, and when our clock first saw it.
        self._observed: tuple[object, float] | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch of writes now; ``None`` while this operator does not hold the lease."""
        return self._epoch if self._clock() < self._held_until else None

    async def run(self) -> None:
        """Take and renew the lease until cancelled, then release it."""
        try:
            while True:
                try:
                    await self.try_once()
                except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    logger.warning("lease %s: %s: %s", self._name, type(error).__name__, error)
                await asyncio.sleep(RENEW_SECONDS)
        finally:
            await asyncio.shield(self._release())

    async def try_once(self) -> None:
        """Take the lease if it is free or has expired, or renew our own."""
        before = self._clock()
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            lease = None
        spec = (lease or {}).get("spec", {})
        ours = spec.get("holderIdentity") == self._identity
        if lease is not None and not ours and not self._has_expired(lease, spec):
            self._lose()
            return
        epoch = int(spec.get("leaseTransitions") or 0) + (0 if ours else 1)
        wanted = self._document(lease, epoch=epoch, holder=self._identity)
        try:
            if lease is None:
                await self._api.create(self._path, wanted)
            else:
                await self._api.replace(f"{self._path}/{self._name}", wanted)
        except ApiError as error:
            if error.status != 409:
                raise
            self._lose()  # another was quicker
            return
        # Counted from before the request: the answer may be slow.
        newly = self.epoch is None
        self._epoch, self._held_until = epoch, before + LEASE_SECONDS - RENEW_SECONDS / 2
        if newly:
            logger.info("lease %s is held, epoch %d", self._name, epoch)
            self._changed()

    def _has_expired(self, lease: Object, spec: Object) -> bool:
        """Whether the holder did not renew it for its whole duration, by our clock: clocks of two nodes may differ."""
        if not spec.get("holderIdentity"):
            return True
        mark = (lease["metadata"]["resourceVersion"], spec.get("renewTime"))
        now = self._clock()
        if self._observed is None or self._observed[0] != mark:
            self._observed = mark, now
            return False
        return now - self._observed[1] > float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _document(self, lease: Object | None, *, epoch: int, holder: str | None) -> Document:
        now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (lease or {}).get("spec", {})
        ours = old.get("holderIdentity") == holder
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": (lease or {}).get("metadata") or {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": LEASE_SECONDS,
                "leaseTransitions": epoch,
                "acquireTime": old.get("acquireTime") if ours else now,
                "renewTime": now,
            },
        }

    def _lose(self) -> None:
        if self.epoch is not None:
            logger.error("lease %s is held by another operator; this one stops acting", self._name)
        self._held_until = float("-inf")

    async def _release(self) -> None:
        if self.epoch is None:
            return
        self._held_until = float("-inf")
        try:
            lease = await self._api.get(f"{self._path}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._identity:
                epoch = int(lease["spec"].get("leaseTransitions") or 0)
                await self._api.replace(f"{self._path}/{self._name}", self._document(lease, epoch=epoch, holder=None))
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("lease %s was not released: %s", self._name, error)
