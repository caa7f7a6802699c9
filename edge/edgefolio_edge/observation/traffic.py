"""Sliding traffic window of the active version, from differences of Triton's counters."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from edgefolio.decision.types import Reading, TrafficWindow
from edgefolio_edge.triton.client import VersionStatistics

_COUNTERS = tuple(field.name for field in fields(VersionStatistics) if field.name != "version")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Counters of one version at one instant of a monotonic clock, in seconds."""

    at: float
    statistics: VersionStatistics
    #: Requests that waited to be computed; ``None`` is unknown.
    pending: int | None = None


def difference(later: VersionStatistics, earlier: VersionStatistics) -> VersionStatistics:
    """Difference of two readings of one version's counters."""
    return VersionStatistics(
        version=later.version, **{name: getattr(later, name) - getattr(earlier, name) for name in _COUNTERS}
    )


def _sum(first: VersionStatistics, second: VersionStatistics) -> VersionStatistics:
    return VersionStatistics(
        version=first.version, **{name: getattr(first, name) + getattr(second, name) for name in _COUNTERS}
    )


class TrafficObserver:
    """Traffic window over readings of the counters, without the agent's own requests."""

    def __init__(self, *, window_seconds: float) -> None:
        self.window_seconds = window_seconds
        self._samples: deque[Sample] = deque()
        self._taken_at = float("-inf")

    def reset(self) -> None:
        """Drop all readings, for another server or version."""
        self._samples.clear()

    @property
    def read_at(self) -> float | None:
        """When the newest reading was taken; ``None`` before the first."""
        return self._samples[-1].at if self._samples else None

    @property
    def is_in_use(self) -> bool:
        """Whether a request was answered within the window."""
        return len(self._samples) > 1 and self._samples[-1].statistics.successes > self._samples[0].statistics.successes

    def add(self, statistics: VersionStatistics, *, at: float, pending: int | None = None) -> None:
        """Take a reading. Another version, or a counter that fell (a reload, a restart), begins a new baseline."""
        if self._samples:
            last = self._samples[-1].statistics
            if last.version != statistics.version or any(
                getattr(statistics, name) < getattr(last, name) for name in _COUNTERS
            ):
                self.reset()
        self._samples.append(Sample(at=at, statistics=statistics, pending=pending))
        # The oldest kept sample lies at or before the window's start, so that the window is full.
        while len(self._samples) > 2 and at - self._samples[1].at >= self.window_seconds:
            self._samples.popleft()

    def exclude(self, before: VersionStatistics, after: VersionStatistics, *, own_requests: int) -> bool:
        """Take the agent's ``own_requests``, sent between two readings, out of the figures.

        ``False`` if users' requests came in between: then its own are subtracted at the mean of all.
        """
        delta = difference(after, before)
        answered = delta.successes + delta.failures
        share = min(1.0, own_requests / answered) if answered > 0 else 0.0
        own = VersionStatistics(
            version=after.version, **{name: round(getattr(delta, name) * share) for name in _COUNTERS}
        )
        if self._samples and self._samples[-1].statistics.version != after.version:
            return False
        # All samples predate these requests: their counts are added to the baseline.
        shifted = [replace(entry, statistics=_sum(entry.statistics, own)) for entry in self._samples]
        self._samples = deque(shifted)
        return answered == own_requests

    def latest(self) -> VersionStatistics | None:
        """Difference of the newest reading and the one that was newest at the last :meth:`take`."""
        new = self._new()
        if len(new) < 2:
            new = list(self._samples)[-2:]
        return difference(new[-1].statistics, new[0].statistics) if len(new) > 1 else None

    def readings(self) -> tuple[Reading, ...]:
        """The readings since the last :meth:`take`, oldest first."""
        return tuple(_reading(earlier, later) for earlier, later in pairwise(self._new()))

    def take(self) -> None:
        """Count the readings so far as taken."""
        self._taken_at = self._samples[-1].at if self._samples else float("-inf")

    def _new(self) -> list[Sample]:
        """The samples from the one that was newest at the last :meth:`take` on."""
        samples = list(self._samples)
        return samples[max((place for place, entry in enumerate(samples) if entry.at <= self._taken_at), default=0) :]

    def window(self, *, now: float, p95_milliseconds: float | None = None) -> TrafficWindow | None:
        """The window that ends with the newest reading; ``None`` before there are two."""
        if len(self._samples) < 2:
            return None
        oldest, newest = self._samples[0], self._samples[-1]
        seconds = newest.at - oldest.at
        if seconds <= 0:
            return None
        delta = difference(newest.statistics, oldest.statistics)
        requests = max(0, delta.successes)
        divisor = 1e6 * max(1, requests)
        return TrafficWindow(
            seconds=seconds,
            requests=requests,
            failures=max(0, delta.failures),
            executions=max(0, delta.executions),
            mean_compute_milliseconds=max(0, delta.compute_nanoseconds) / divisor,
            mean_queue_milliseconds=max(0, delta.queue_nanoseconds) / divisor,
            mean_total_milliseconds=max(0, delta.success_nanoseconds) / divisor,
            # Little's law: time spent inside by all requests, per second.
            in_flight=max(0, delta.success_nanoseconds) / 1e9 / seconds,
            age_seconds=max(0.0, now - newest.at),
            p95_milliseconds=p95_milliseconds,
            readings=self.readings(),
        )


def _reading(earlier: Sample, later: Sample) -> Reading:
    delta = difference(later.statistics, earlier.statistics)
    requests = max(0, delta.successes)
    divisor = 1e6 * max(1, requests)
    return Reading(
        seconds=later.at - earlier.at,
        requests=requests,
        mean_compute_milliseconds=max(0, delta.compute_nanoseconds) / divisor,
        mean_queue_milliseconds=max(0, delta.queue_nanoseconds) / divisor,
        mean_total_milliseconds=max(0, delta.success_nanoseconds) / divisor,
        pending=later.pending,
    )
