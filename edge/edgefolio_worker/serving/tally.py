"""What a worker counts: who answered and why, own computing and waiting. The caller holds the worker's lock."""

from __future__ import annotations

from collections import Counter
from copy import copy

from edgefolio_worker.protocol.expected import entry_of

__all__ = ["Tally"]


class Tally:
    """Counts since the worker's start. Times are in seconds."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.jobs = 0
        self.exchange_seconds = 0.0
        self.computed = 0
        self.compute_seconds = 0.0
        #: Of the last job that was computed to its end.
        self.last_compute_seconds = 0.0
        #: By entry: its job under way, and what it took this worker so far.
        self._spent: dict[int, tuple[int, float]] = {}

    def copy(self) -> Tally:
        """The counts as they are."""
        found = copy(self)
        found.answers = Counter(self.answers)
        return found

    def spent(self, job: int, seconds: float, *, is_last: bool) -> None:
        """A segment was computed; the last one of its job or not."""
        entry = entry_of(job)
        known, before = self._spent.get(entry, (job, 0.0))
        total = seconds + (before if known == job else 0.0)
        self._spent[entry] = (job, total)
        if is_last:
            self.computed += 1
            self.compute_seconds += total
            self.last_compute_seconds = total

    def answered(self, job: int, seconds: float) -> None:
        """All did an own job, a request's or a probe, after so long; what was not own computing was waiting."""
        known, computing = self._spent.get(entry_of(job), (job, 0.0))
        self.jobs += 1
        self.exchange_seconds += max(0.0, seconds - (computing if known == job else 0.0))

    def fell_back(self, reason: str) -> None:
        """The fallback answered."""
        self.answers["fallback", reason] += 1
