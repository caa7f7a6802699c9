"""Leader election by a Lease, with an epoch that grows with every change of its holder, and never goes back.

A paused operator (a frozen process, a cut link) wakes up believing that it still leads. It stops by
itself, because it asks the clock before each write; and if it does not, the API server refuses it: an endpoint's epoch
never falls. For the same reason a Lease that was deleted or lies elsewhere must not begin at 1 again: a new epoch is
above all that endpoints hold.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp

from edgefolio_operator.kube.client import Api, ApiError, collection
from edgefolio_operator.kube.epoch import EPOCH_ANNOTATION, SeenEpochs, epoch_of_lease
from edgefolio_operator.kube.objects import Document, Object, annotations_of, part_of

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15
RENEW_SECONDS = 5.0
#: Another holder's own duration is believed up to here; nobody writes more than a minute.
_LONGEST_LEASE_SECONDS = 120.0
#: Each new epoch is written to every endpoint. Agents can cause one only after a minute, then two, four, and so on up
#: to an hour.
_FIRST_RAISE_SECONDS = 60.0
_LONGEST_RAISE_SECONDS = 3600.0
_LARGEST_TRANSITIONS = 2**31 - 1


class LeaderElection:
    """Takes the Lease and renews it while :meth:`run` runs; ``changed`` is called when it was taken.

    ``seen`` gives the epochs that endpoints hold.
    """

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        identity: str,
        changed: Callable[[], None] = lambda: None,
        seen: Callable[[], SeenEpochs] = SeenEpochs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._path = collection("coordination.k8s.io/v1", "leases", namespace)
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._changed = changed
        self._seen = seen
        self._may_raise_at = float("-inf")
        self._raise_pause = _FIRST_RAISE_SECONDS
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
                except Exception:
                    logger.exception("lease %s cannot be used", self._name)
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
        ours = part_of(lease or {}, "spec", "holderIdentity") == self._identity
        if lease is not None and not ours and not self._has_expired(lease):
            self._lose()
            return
        epoch = self._next_epoch(lease, ours=ours)
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
        newly = self.epoch != epoch
        self._epoch, self._held_until = epoch, before + LEASE_SECONDS - RENEW_SECONDS / 2
        if newly:
            logger.info("lease %s is held, epoch %d", self._name, epoch)
            self._changed()

    def _next_epoch(self, lease: Object | None, *, ours: bool) -> int:
        """The epoch to hold the lease with: that of our lease, or one above all that were seen."""
        held, seen = epoch_of_lease(lease), self._seen()
        if ours and held >= max(seen.ordered, 1):
            if seen.obeyed <= held or self._clock() < self._may_raise_at:
                return held
            # Agents that obeyed an operator whose lease and orders are gone, or one that lies.
            self._may_raise_at = self._clock() + self._raise_pause
            self._raise_pause = min(2 * self._raise_pause, _LONGEST_RAISE_SECONDS)
        return max(held, self._epoch, seen.ordered, seen.obeyed) + 1

    def _has_expired(self, lease: Object) -> bool:
        """Whether the holder did not renew it for its whole duration, by our clock: clocks of two nodes may differ."""
        if not part_of(lease, "spec", "holderIdentity"):
            return True
        mark = (part_of(lease, "metadata", "resourceVersion"), part_of(lease, "spec", "renewTime"))
        now = self._clock()
        if self._observed is None or self._observed[0] != mark:
            self._observed = mark, now
            return False
        told = part_of(lease, "spec", "leaseDurationSeconds")
        seconds = told if type(told) is int and told > 0 else LEASE_SECONDS
        return now - self._observed[1] > min(seconds, _LONGEST_LEASE_SECONDS)

    def _document(self, lease: Object | None, *, epoch: int, holder: str | None) -> Document:
        now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = part_of(lease or {}, "spec", "holderIdentity") == holder
        metadata = part_of(lease or {}, "metadata") or {"name": self._name, "namespace": self._namespace}
        annotations = {**annotations_of(lease), EPOCH_ANNOTATION: str(epoch)}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "annotations": annotations},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": LEASE_SECONDS,
                "leaseTransitions": min(epoch, _LARGEST_TRANSITIONS),
                "acquireTime": (part_of(lease or {}, "spec", "acquireTime") if ours else None) or now,
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
            if part_of(lease, "spec", "holderIdentity") == self._identity:
                document = self._document(lease, epoch=epoch_of_lease(lease), holder=None)
                await self._api.replace(f"{self._path}/{self._name}", document)
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            logger.warning("lease %s was not released: %s", self._name, error)
