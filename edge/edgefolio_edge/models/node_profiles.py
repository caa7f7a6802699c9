"""Profile that a node predicts with: looked for in the repository, or ordered, verified and kept on local disk.

Without a usable one the manifest's own profile counts. Nothing here can keep a revision from being served: a profile
that is missing, wrong or cannot be fetched is said, and looked for again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgefolio.decision.profiles import Measured, choose_profile, int8_variants
from edgefolio.errors import IntegrityError, UserError
from edgefolio.files import write_durably
from edgefolio.manifest import PublishedManifest
from edgefolio.node_profile import NodeProfile, PublishedProfile
from edgefolio.processor_class import Processor
from edgefolio.repository import Repository
from edgefolio.repository.profiles import fitting_profile, published_profile
from edgefolio.specification.endpoint import ProfileOrder

#: How often a repository is asked for the profile of a class that had none, or a newer one.
LOOK_SECONDS = 300.0
#: After a failure, or a profile that was refused.
RETRY_SECONDS = 60.0
_FIELD = "--state-dir"


@dataclass(frozen=True, kw_only=True)
class HeldProfile:
    """The profile that decisions rest on. ``profile`` is ``None`` for the manifest's own; ``evidence`` says why."""

    evidence: str
    profile: NodeProfile | None = None
    digest: str | None = None
    #: Profiles that failed verification, or could not be fetched.
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class OrderedProfile:
    """The profile that is ordered for one manifest; ``order`` is ``None`` for the manifest's own."""

    manifest_sha256: str
    order: ProfileOrder | None


class NodeProfiles:
    """The profile for the node's processor, of one revision at a time. Used by the synchronizer's thread alone."""

    def __init__(
        self,
        directory: Path,
        node: Processor,
        *,
        ordered: Callable[[], OrderedProfile | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With ``ordered`` only the profile that it names is taken; without, the one that fits the node.

        While an order is for a revision that is still to be fetched, the one that serves keeps its profile.
        """
        self._directory = directory
        self._node = node
        self._ordered = ordered
        self._clock = clock
        self._held: tuple[tuple[int, str], HeldProfile] | None = None
        self._next_look: tuple[object, float] | None = None

    def of(self, published: PublishedManifest) -> HeldProfile:
        """The profile held for this manifest: as it was taken, else as it lies on disk, else the manifest's own."""
        key = (published.manifest.revision, published.sha256)
        if self._held is None or self._held[0] != key or not self._may_stay(published, self._held[1]):
            self._held = (key, self._from_disk(published) or self._of_manifest(published))
        return self._held[1]

    def refresh(self, published: PublishedManifest, opened: Callable[[], Repository]) -> HeldProfile:
        """:meth:`of`, after a look into the repository where one is due; an unreachable one changes nothing."""
        held, order = self.of(published), self._order(published)
        if self._ordered is not None and (order is None or order.name is None or held.digest == order.digest):
            return held
        wanted = (published.sha256, order)
        if self._next_look is not None and self._next_look[0] == wanted and self._clock() < self._next_look[1]:
            return held
        self._next_look = (wanted, self._clock() + RETRY_SECONDS)
        try:
            held = self._looked_for(published, opened(), order)
        except (UserError, OSError) as error:
            if order is not None:
                held = replace(held, problem=f"the ordered profile cannot be fetched: {error}")
                self._held = ((published.manifest.revision, published.sha256), held)
            return held
        if self._ordered is None and held.problem is None:
            self._next_look = (wanted, self._clock() + LOOK_SECONDS)
        self._held = ((published.manifest.revision, published.sha256), held)
        return held

    def _looked_for(
        self, published: PublishedManifest, repository: Repository, order: ProfileOrder | None
    ) -> HeldProfile:
        if order is None:
            fitting = fitting_profile(repository, published.manifest, self._node, manifest_sha256=published.sha256)
            return self._kept(
                published, fitting.published, fitting.choice.evidence, problem="; ".join(fitting.refused) or None
            )
        assert order.name is not None
        try:
            found = published_profile(
                repository,
                published.manifest,
                order.name,
                manifest_sha256=published.sha256,
                sha256=order.digest,
            )
            problem = None if found is not None else f"the ordered profile {order.name} is not in the repository."
        except IntegrityError as error:
            found, problem = None, str(error)
        return self._kept(published, found, order.evidence, problem=problem)

    def _kept(
        self, published: PublishedManifest, found: PublishedProfile | None, evidence: str, *, problem: str | None
    ) -> HeldProfile:
        path = self._path(published)
        for other in self._directory.glob("profile-*.json"):
            if other != path or found is None:
                other.unlink(missing_ok=True)
        if found is None:
            own = self._of_manifest(published)
            return HeldProfile(evidence=own.evidence, problem=problem)
        if not path.is_file() or path.read_bytes() != found.raw:
            write_durably(path, found.raw, field=_FIELD)
        return HeldProfile(evidence=evidence, profile=found.profile, digest=found.sha256, problem=problem)

    def _from_disk(self, published: PublishedManifest) -> HeldProfile | None:
        order, path = self._order(published), self._path(published)
        if self._ordered is not None and (order is None or order.name is None):
            return None
        try:
            found = PublishedProfile.from_bytes(
                path.read_bytes(), location=str(path), sha256=None if order is None else order.digest
            )
            found.profile.require_of(published.manifest, manifest_sha256=published.sha256, location=str(path))
        except (OSError, IntegrityError):
            return None
        if order is not None:
            evidence = order.evidence
        else:
            candidates = (Measured.of_manifest(published.manifest), Measured.of(found.profile))
            choice = choose_profile(self._node, candidates, int8=int8_variants(published.manifest))
            if choice.measured.name is None:
                return None
            evidence = choice.evidence
        return HeldProfile(evidence=evidence, profile=found.profile, digest=found.sha256)

    def _of_manifest(self, published: PublishedManifest) -> HeldProfile:
        manifest = published.manifest
        choice = choose_profile(self._node, (Measured.of_manifest(manifest),), int8=int8_variants(manifest))
        return HeldProfile(evidence=choice.evidence)

    def _may_stay(self, published: PublishedManifest, held: HeldProfile) -> bool:
        """Whether ``held`` is the ordered one, or the manifest's own until that is fetched."""
        if self._ordered is None or held.digest is None:
            return True
        ordered = self._ordered()
        if ordered is not None and ordered.manifest_sha256 != published.sha256:
            return True
        order = self._order(published)
        return order is not None and order.digest == held.digest

    def _order(self, published: PublishedManifest) -> ProfileOrder | None:
        """The order for this very manifest."""
        ordered = None if self._ordered is None else self._ordered()
        return None if ordered is None or ordered.manifest_sha256 != published.sha256 else ordered.order

    def _path(self, published: PublishedManifest) -> Path:
        return self._directory / f"profile-{published.manifest.revision}.json"
