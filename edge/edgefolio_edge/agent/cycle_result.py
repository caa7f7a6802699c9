"""The result of one agent cycle: observation, decision and outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefolio.decision.types import Decision, Observation, State
from edgefolio.manifest import Manifest
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.sync_state import Synced
from edgefolio_edge.models.variants import variant_of_version
from edgefolio_edge.triton.placement import Placement


@dataclass(frozen=True, kw_only=True)
class ServedVersions:
    """The versions that the server serves. ``active`` is ``None`` if there is none, or none known here."""

    ready: tuple[int, ...]
    active: Placement | None
    name: str | None

    @classmethod
    def of(cls, ready: tuple[int, ...], *, manifest: Manifest | None, store: ModelStore) -> ServedVersions:
        """The variant of the highest version, of ``manifest`` or of an older revision that ``store`` has kept."""
        if not ready or manifest is None:
            return cls(ready=ready, active=None, name=None)
        version = ready[-1]
        variant = variant_of_version(manifest, version)
        if variant is not None:
            return cls(ready=ready, active=Placement(manifest=manifest, variant=variant), name=variant.name)
        older = store.manifests.of_version(version)
        found = variant_of_version(older, version) if older is not None else None
        if older is None or found is None:
            return cls(ready=ready, active=None, name=f"version {version}")
        # Another revision's variant may have the same name and still is another model.
        name = f"{found.name} of revision {older.revision}"
        return cls(ready=ready, active=Placement(manifest=older, variant=found), name=name)


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
    serve. ``server_version`` is Triton's, where known, ``largest_batch`` the samples of the largest request that is
    served. A cycle that an error cut short has no result; its ``failure`` and ``switched`` come with the next one.
    """

    synced: Synced
    served: ServedVersions | None
    observation: Observation | None
    decision: Decision | None
    state: State
    trouble: str | None = None
    failure: CycleFailure | None = None
    switched: bool = False
    #: Seconds to add to the times in ``state`` for the wall clock, which people read.
    clock_offset: float = 0.0
    server_version: str = ""
    largest_batch: int | None = None

    def status(self, *, model: str, grpc: str, http: str | None, now: float) -> dict[str, Any]:
        """The content of ``status.json``, for people; ``now`` is of the state's clock, the addresses are Triton's."""
        synced, served, decision = self.synced, self.served, self.decision
        status: dict[str, Any] = {
            "model": model,
            "revision": None if synced.manifest is None else synced.manifest.revision,
            "activeVariant": None if served is None else served.name,
            "residentVersions": [] if served is None else list(served.ready),
            "profile": None if synced.profile is None else synced.profile.evidence,
            "endpoint": {"grpc": grpc, "http": http},
            "conditions": {
                "RevisionRefused": None if synced.refusal is None else synced.refusal.problem,
                "RepositoryUnreachable": synced.unreachable,
                "ObjectivesMet": None if decision is None else decision.objectives_met,
                "Standby": None if decision is None or decision.standby is None else decision.standby.message,
            },
            "quarantined": [entry.variant for entry in self.state.quarantined if entry.until > now],
        }
        if decision is not None:
            status["decision"] = {"action": decision.action.value, "reason": decision.reason.value}
        return status
