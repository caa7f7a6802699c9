"""Retry times of the synchronizer: of what was refused, rejected or damaged, and the jitter of a node."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

from edgefolio.manifest import Manifest
from edgefolio_edge.models.sync_state import Refusal

#: A revision that could not be served is tried again after this long, or when another one was wanted meanwhile.
REJECTED_SECONDS = 3600.0
#: A refused revision is tried again after this long (it may have been repaired in place), or when the pointer moves.
REFUSED_SECONDS = 60.0

#: A revision that is wanted, and the digest of its manifest.
WantedRevision = tuple[int, str]


@dataclass(frozen=True, kw_only=True)
class RejectedRevision:
    """A revision that the agent could not serve, and the one that serves instead. ``wanted`` is as it was ordered."""

    revision: int
    problem: str
    instead: Manifest
    at: float
    wanted: WantedRevision | None = None

    @property
    def refusal(self) -> Refusal:
        """The refusal that says so."""
        return Refusal(revision=self.revision, problem=self.problem)


class RetryTimes:
    """Times before which nothing is fetched again. ``jitter_seconds`` spreads a new revision's fetches over nodes."""

    def __init__(self, *, jitter_seconds: float) -> None:
        self._jitter_seconds = jitter_seconds
        self._refused: tuple[WantedRevision, float] | None = None
        self._rejected: RejectedRevision | None = None
        self._not_before: tuple[WantedRevision, float] | None = None
        self._damaged: dict[str, float] = {}

    def refuse(self, wanted: WantedRevision) -> None:
        """Note that ``wanted`` is refused."""
        self._refused = (wanted, time.monotonic())

    def is_refused(self, wanted: WantedRevision) -> bool:
        """Whether ``wanted`` was refused and is not tried again yet."""
        if self._refused is None or self._refused[0] != wanted:
            return False
        if time.monotonic() - self._refused[1] < REFUSED_SECONDS:
            return True
        self._refused = None
        return False

    def reject(self, revision: int, *, problem: str, instead: Manifest) -> None:
        """Note that the agent could serve no variant of ``revision``. Called from the agent's thread."""
        self._rejected = RejectedRevision(revision=revision, problem=problem, instead=instead, at=time.monotonic())

    def rejected(self, wanted: WantedRevision) -> RejectedRevision | None:
        """The rejection of ``wanted`` that still holds. It ends with its time, or once another revision is wanted."""
        found = self._rejected
        if found is None:
            return None
        if found.wanted is None and found.revision == wanted[0]:
            self._rejected = found = replace(found, wanted=wanted)
        if found.wanted != wanted or time.monotonic() - found.at >= REJECTED_SECONDS:
            self._rejected = None
            return None
        return found

    def damage(self, digest: str) -> None:
        """Note that the file with this digest could not be fetched whole."""
        self._damaged[digest] = time.monotonic()

    def is_damaged(self, digest: str) -> bool:
        """Whether the file with this digest is not fetched again yet."""
        return time.monotonic() - self._damaged.get(digest, -REFUSED_SECONDS) < REFUSED_SECONDS

    def is_too_early(self, wanted: WantedRevision, *, serves: bool) -> bool:
        """Whether the jitter delays the fetch of ``wanted``. A node that serves nothing yet never waits."""
        if not serves or not self._jitter_seconds:
            return False
        if self._not_before is None or self._not_before[0] != wanted:
            self._not_before = (wanted, time.monotonic() + random.uniform(0, self._jitter_seconds))
        if time.monotonic() < self._not_before[1]:
            return True
        self._not_before = None
        return False

    def next_poll(self, seconds: float) -> float:
        """``seconds`` until the next poll, fewer if the jitter ends before."""
        if self._not_before is None:
            return seconds
        return min(seconds, max(0.05, self._not_before[1] - time.monotonic()))
