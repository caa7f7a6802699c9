"""State of synchronization: what is on disk, which revision was refused and why, and the node's limits."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.manifest import Manifest
from edgefolio_edge import reasons
from edgefolio_edge.models.node_profiles import HeldProfile


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refused revision: its bytes are not the manifest's, or it does not fit on this node."""

    revision: int | None
    problem: str
    reason: str = reasons.REVISION_REFUSED

    @classmethod
    def of_rollback(cls, revision: int, *, served: int) -> Refusal:
        """The refusal of a published ``revision`` that is older than the one ``served``."""
        return cls(
            revision=revision,
            problem=f"The repository says revision {revision}, and revision {served} was served before. "
            "Publish a new revision, set spec.pinnedRevision to go back, or start with --allow-rollback.",
            reason=reasons.REVISION_WENT_BACK,
        )


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What is on disk. ``manifest`` is the revision to serve; ``available`` names its variants that can be loaded."""

    manifest: Manifest | None = None
    available: tuple[str, ...] = ()
    complete: bool = False
    refusal: Refusal | None = None
    #: Why the repository could not be read at the last try, ``None`` if it was.
    unreachable: str | None = None
    #: The profile of ``manifest`` that predictions rest on; ``None`` where nobody looks for one.
    profile: HeldProfile | None = None

    @property
    def refusal_message(self) -> str:
        """The refused revision, why, and the one that serves instead; empty without a refusal."""
        if self.refusal is None:
            return ""
        number = self.refusal.revision
        what = "A published revision" if number is None else f"Revision {number}"
        instead = "nothing serves yet" if self.manifest is None else f"revision {self.manifest.revision} serves on"
        return f"{what} is refused, {instead}: {self.refusal.problem}"


@dataclass(frozen=True, kw_only=True)
class SyncLimits:
    """Limits of a node. ``jitter_seconds`` spreads the fetches of a new revision over the nodes."""

    storage_bytes: int | None = None
    bytes_per_second: int | None = None
    jitter_seconds: float = 0.0
