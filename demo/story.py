"""What happens when: the phases of one load, in seconds from its start."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Event(StrEnum):
    """What a phase does to the server."""

    QUIET = "quiet"
    CPU_HOG = "CPU hog"
    OBJECTIVE_CHANGED = "objective halved"
    CORRUPT_PUBLISHED = "corrupt revision published"
    AGENT_KILLED = "agent killed, restarted"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of the load."""

    event: Event
    seconds: float


#: The same for every server that is compared.
COMPARED = (
    Phase(event=Event.QUIET, seconds=6),
    Phase(event=Event.CPU_HOG, seconds=12),
    Phase(event=Event.QUIET, seconds=16),
    Phase(event=Event.OBJECTIVE_CHANGED, seconds=8),
)

#: What only a server with an agent can be asked to survive.
TRIALS = (
    Phase(event=Event.CORRUPT_PUBLISHED, seconds=6),
    Phase(event=Event.AGENT_KILLED, seconds=8),
)


@dataclass(frozen=True, kw_only=True)
class PlacedPhase:
    """A phase with its place in time, in seconds from the start of the load."""

    event: Event
    start: float
    end: float


def placed(phases: tuple[Phase, ...]) -> tuple[PlacedPhase, ...]:
    """``phases`` one after another."""
    result = []
    start = 0.0
    for phase in phases:
        result.append(PlacedPhase(event=phase.event, start=start, end=start + phase.seconds))
        start += phase.seconds
    return tuple(result)
