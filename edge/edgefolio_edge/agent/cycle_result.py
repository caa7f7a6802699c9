"""The result of one cycle of the agent: what was seen and decided, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.decision.types import Decision, Observation, State
from edgefolio_edge.models.synchronizer import Synced
from edgefolio_edge.triton.switcher import Placement

LOAD_FAILED = "LoadFailed"
RESTART_NEEDED = "RestartNeeded"


@dataclass(frozen=True, kw_only=True)
class ServedVersions:
    """The versions that the server serves. ``active`` is ``None`` if there is none, or none that is known here."""

    ready: tuple[int, ...]
    active: Placement | None
    name: str | None


@dataclass(frozen=True, kw_only=True)
class CycleFailure:
    """The ``lastFailure`` of a cycle: a load that failed, a restart that is needed, a revision that was refused."""

    reason: str
    message: str
    revision: int | None = None
    variant: str | None = None


@dataclass(frozen=True, kw_only=True)
class CycleResult:
    """How one cycle ended. ``decision`` and ``observation`` are ``None`` where there was nothing to decide on.

    ``trouble`` says why the server cannot be worked with. ``switched`` tells whether another variant was brought to
    serve. A cycle that an error cut short has no result; its ``failure`` and ``switched`` come with the next one.
    """

    synced: Synced
    served: ServedVersions | None
    observation: Observation | None
    decision: Decision | None
    state: State
    trouble: str | None = None
    failure: CycleFailure | None = None
    switched: bool = False
