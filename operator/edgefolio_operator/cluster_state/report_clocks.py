"""When each agent's report was heard, and how its clock differs from the operator's.

An agent's times are of its node's clock, which may be minutes off, or set while it runs. They are never compared with
the operator's: the difference of the two is taken from when a report arrives, on a monotonic clock, and what an agent
says is judged by its own time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgefolio.specification.conditions import readable_time
from edgefolio_operator.cluster_state.remote_clock import RemoteClock
from edgefolio_operator.kube.cache import Change
from edgefolio_operator.kube.objects import Object, ObjectKey, object_key, part_of

#: Reports take seconds to arrive, also from a busy node; a clock that differs by more is wrong.
TOLERANCE_SECONDS = 30.0
#: Field of a cached ModelEndpoint: when its status was written, by the API server's clock.
WRITTEN_FIELD = "statusWrittenTime"


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """What is known of an agent's clock: its time less the operator's, and when its last failure was heard of.

    ``clock_offset`` is 0 within the tolerance. ``failed_at`` is of the operator's clock; ``None`` without a failure.
    """

    clock_offset: float = 0.0
    failed_at: float | None = None


@dataclass(kw_only=True)
class _Agent:
    clock: RemoteClock
    failed_at: float | None = None


class ReportClocks:
    """The clocks of all agents, kept from the changes of their ModelEndpoints."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._agents: dict[ObjectKey, _Agent] = {}

    def note(self, change: Change) -> None:
        """Take what a change of a ModelEndpoint says about its agent's clock."""
        key = object_key(change.object)
        if change.after is None:
            self._agents.pop(key, None)
            return
        observed = readable_time(part_of(change.after, "status", "observation", "time"))
        before = None if change.before is None else part_of(change.before, "status", "observation", "time")
        if part_of(change.after, "status") is None:
            return
        agent = self._agents.get(key)
        if agent is None:
            lead = self._first_lead(change.after, observed)
            agent = self._agents[key] = _Agent(clock=RemoteClock(lead=lead, tolerance=TOLERANCE_SECONDS))
        if observed is not None and part_of(change.after, "status", "observation", "time") != before:
            agent.clock.heard(observed, monotonic=self._monotonic(), is_new=not change.is_listed)
        self._note_failure(change, agent)

    def of(self, key: ObjectKey) -> Hearing:
        """What is known of the agent of an endpoint."""
        held = self._agents.get(key)
        if held is None:
            return Hearing()
        offset = held.clock.offset(monotonic=self._monotonic(), now=self._clock())
        return Hearing(clock_offset=offset, failed_at=held.failed_at)

    def _first_lead(self, endpoint: Object, observed: float | None) -> float:
        """An agent's clock at the first report, which may be old: assumed right unless the API server disagrees."""
        lead = self._clock() - self._monotonic()
        written = readable_time(endpoint.get(WRITTEN_FIELD))
        if observed is not None and written is not None and abs(observed - written) > TOLERANCE_SECONDS:
            lead += observed - written
        return lead

    def _note_failure(self, change: Change, agent: _Agent) -> None:
        assert change.after is not None
        failure = part_of(change.after, "status", "lastFailure")
        before = None if change.before is None else part_of(change.before, "status", "lastFailure")
        if failure is None or (agent.failed_at is not None and failure == before):
            return
        now = self._clock()
        said = readable_time(part_of(failure, "time"))
        if change.is_listed and said is not None:
            agent.failed_at = min(now, said - agent.clock.offset(monotonic=self._monotonic(), now=now))
        else:
            agent.failed_at = now


def written_time(endpoint: Object) -> str | None:
    """When the status of a ModelEndpoint was last written, by the API server's clock."""
    entries = part_of(endpoint, "metadata", "managedFields")
    times = [
        part_of(entry, "time")
        for entry in (entries if isinstance(entries, list) else ())
        if part_of(entry, "subresource") == "status"
    ]
    return max((text for text in times if readable_time(text) is not None), default=None)
