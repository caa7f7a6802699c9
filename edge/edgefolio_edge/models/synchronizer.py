"""Synchronizer of the local model store with a repository; the last good revision serves on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from edgefolio.errors import IntegrityError, UserError
from edgefolio.files import is_disk_full
from edgefolio.manifest import VERSIONS_PER_REVISION, Manifest, PublishedManifest, Variant
from edgefolio.repository import Repository, layout
from edgefolio.repository.remote.calls import TransferStopped, interruptible
from edgefolio.shown_text import printable
from edgefolio_edge import reasons
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.node_profiles import HeldProfile, NodeProfiles
from edgefolio_edge.models.rehearsal import require_usable
from edgefolio_edge.models.retry_times import RejectedRevision, RetryTimes, WantedRevision
from edgefolio_edge.models.room import InsufficientStorageError, disk_full, require_room
from edgefolio_edge.models.sync_state import Refusal, Synced, SyncLimits
from edgefolio_edge.models.variants import by_size

#: How often the repository's pointer is read.
POLL_SECONDS = 2.0


class Synchronizer:
    """Polls the repository in a thread of its own. ``synced`` is replaced as a whole, so reading it needs no lock."""

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        store: ModelStore,
        *,
        pinned_revision: int | None = None,
        may_go_back: bool = False,
        ordered: Callable[[], WantedRevision | None] | None = None,
        limits: SyncLimits | None = None,
        node_profiles: NodeProfiles | None = None,
        poll_seconds: float = POLL_SECONDS,
        woken: threading.Event | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``open_repository`` is called anew after a failure; ``pinned_revision`` is taken instead of the pointer's.

        A pointer that names an older revision than the last good one is refused unless it ``may_go_back``: whoever
        can write the repository could bring back a revision that was replaced for a reason.
        ``ordered`` names the revision and its manifest's digest from outside the repository, which is then asked
        only for files not on disk. ``node_profiles`` hold the profile for this node.
        Setting ``woken`` makes it poll at once. ``changed`` is called after each change of ``synced``, in the
        synchronizer's thread.
        """
        self._open = open_repository
        self._repository: Repository | None = None
        self._store = store
        self._pinned = pinned_revision
        self._may_go_back = may_go_back
        self._ordered = ordered
        self._limits = limits or SyncLimits()
        self._node_profiles = node_profiles
        self._poll_seconds = poll_seconds
        self._retries = RetryTimes(jitter_seconds=self._limits.jitter_seconds)
        self._unservable: int | None = None
        self._published: PublishedManifest | None = None
        self._stopping = threading.Event()
        self._woken = woken or threading.Event()
        self._changed = changed
        self._thread: threading.Thread | None = None
        #: Versions that the server was last seen to serve; ``None`` if it was not seen. They are not removed.
        self.served_versions: tuple[int, ...] | None = None
        self.synced = self._from_disk()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="synchronizer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. A transfer under way is resumed the next time."""
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def step(self) -> Synced:
        """Poll once, and fetch missing files. Raises nothing: the thread must go on whatever it finds."""
        try:
            self._step()
            self._look_for_profile()
        except TransferStopped:
            pass
        except IntegrityError as error:
            self._refuse(Refusal(revision=None, problem=str(error)))
        except (UserError, OSError) as error:
            self._unreachable(str(error))
        except Exception as error:
            self._unreachable(_unforeseen(error))
        return self.synced

    def reject(self, revision: int, *, problem: str, instead: Manifest | None) -> None:
        """Refuse ``revision``, none of whose variants could be served; ``instead``, which is on disk, serves on.

        Where there is none, ``revision`` is tried on, and the pointer may go back from it.
        """
        self._unservable = revision
        if instead is not None:
            self._retries.reject(revision, problem=problem, instead=instead)
            self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with interruptible(self._unless_reordered()):
                self.step()
            self._woken.wait(self._retries.next_poll(self._poll_seconds))
            self._woken.clear()

    def _unless_reordered(self) -> Callable[[], bool]:
        """Whether the order is still the present one: another must not wait for a silent store or a slow transfer."""
        order = self._ordered() if self._ordered is not None else None
        return lambda: not self._stopping.is_set() and (self._ordered is None or self._ordered() == order)

    def _step(self) -> None:
        current = self._published
        rejected = None if current is None else self._retries.rejection_of(current.manifest.revision)
        if rejected is not None:
            self._serve_instead(rejected)  # the repository may be away
        wanted = self._wanted()
        if wanted is None:
            unreachable = None if self._ordered is not None else "nothing is published for this model yet"
            self._update(replace(self.synced, unreachable=unreachable))
            return
        revision, digest = wanted
        refused = self.synced.refusal
        if refused is not None and refused.revision not in (None, revision):
            self._update(replace(self.synced, refusal=None))  # it is no longer wanted
        if self._is_rejected(wanted):
            return
        current = self._published
        if current is not None and (went_back := self._went_back(current.manifest, revision)) is not None:
            self._complete(current)
            self._refuse(went_back)
            return
        if current is not None and (current.manifest.revision, current.sha256) == wanted:
            self._complete(current)
            if self.synced.refusal is not None and self.synced.complete:
                self._update(replace(self.synced, refusal=None))
            return
        if self._restores_from_disk(revision, digest):
            return
        if self._retries.is_refused(wanted):
            return
        if self._retries.is_too_early(wanted, serves=self.synced.manifest is not None):
            return
        problem = self._problem_of(revision, digest)
        if problem is not None:
            self._retries.refuse(wanted)
            self._refuse(problem)

    def _look_for_profile(self) -> None:
        """Look for the node's profile once there is something to serve; it can wait, and delays nothing."""
        published = self._published
        if self._node_profiles is None or published is None or not self.synced.complete:
            return
        held = self._node_profiles.refresh(published, self._opened)
        self._update(replace(self.synced, profile=held))

    def _went_back(self, current: Manifest, revision: int) -> Refusal | None:
        """Why the pointer's ``revision``, older than ``current``, is not followed. Orders and pins may go back."""
        if revision >= current.revision or self._may_go_back or self._pinned or self._ordered is not None:
            return None
        if not self._may_have_served(current):
            return None
        return Refusal.of_rollback(revision, served=current.revision)

    def _may_have_served(self, manifest: Manifest) -> bool:
        """Whether something of ``manifest`` serves or could: a way back from what cannot must stay open."""
        if manifest.revision != self._unservable:
            return bool(self.synced.available)
        return any(version // VERSIONS_PER_REVISION == manifest.revision for version in self.served_versions or ())

    def _problem_of(self, revision: int, digest: str) -> Refusal | None:
        """Take a new revision; why it is refused, ``None`` if it is not. What a retry may solve is raised."""
        published: PublishedManifest | None = None
        try:
            published = self._opened().published_manifest(self._store.model, revision, sha256=digest or None)
            manifest = published.manifest
            require_usable(manifest, location=self._opened().location(layout.manifest_path(manifest.model, revision)))
            require_room(
                self._store,
                manifest,
                current=self.synced.manifest,
                granted_bytes=self._limits.storage_bytes,
                served_versions=self.served_versions,
            )
            self._adopt(published)
        except TransferStopped:
            raise
        except IntegrityError as error:
            return Refusal(revision=revision, problem=str(error))
        except InsufficientStorageError as error:
            return Refusal(revision=revision, problem=str(error), reason=reasons.INSUFFICIENT_STORAGE)
        except (UserError, OSError) as error:
            if published is None or not is_disk_full(error):
                raise
            return self._disk_full(published.manifest)
        except Exception as error:  # a fault of ours that strangers' bytes found: the next revision may have none
            return Refusal(revision=revision, problem=_unforeseen(error))
        return None

    def _disk_full(self, manifest: Manifest) -> Refusal:
        """Make room for the next revision: what was fetched of this one would keep the disk full."""
        problem = disk_full(self._store, manifest, self._store.missing_bytes(manifest))
        self._store.forget_transfers(())
        return Refusal(revision=manifest.revision, problem=str(problem), reason=reasons.INSUFFICIENT_STORAGE)

    def _is_rejected(self, wanted: WantedRevision) -> bool:
        """Whether the agent could not serve ``wanted``, so that another revision serves instead."""
        found = self._retries.rejected(wanted)
        if found is None:
            return False
        self._serve_instead(found)
        assert self._published is not None
        self._complete(self._published)  # what serves on may be damaged meanwhile
        return True

    def _serve_instead(self, found: RejectedRevision) -> None:
        """Make the revision that serves instead of a rejected one the current one."""
        if self.synced.manifest != found.instead or self.synced.refusal != found.refusal:
            published = self._store.manifests.of_revision(found.instead.revision) or PublishedManifest.of(found.instead)
            self._store.write_configuration(found.instead)
            self._store.manifests.keep(published, complete=True)
            complete = self._store.is_complete(found.instead)
            self._take(published, complete=complete, refusal=found.refusal)

    def _opened(self) -> Repository:
        if self._repository is None:
            self._repository = self._open()
        return self._repository

    def _wanted(self) -> WantedRevision | None:
        if self._ordered is not None:
            return self._ordered()
        current = self._published
        if self._pinned and current is not None and current.manifest.revision == self._pinned:
            return self._pinned, current.sha256
        pointer = self._opened().current(self._store.model)
        if self._pinned and (pointer is None or pointer.revision != self._pinned):
            # The pointer verifies the current revision alone; an older one is trusted as found.
            return self._pinned, self._opened().published_manifest(self._store.model, self._pinned).sha256
        if pointer is None:
            return None
        return pointer.revision, pointer.manifest_sha256

    def _restores_from_disk(self, revision: int, digest: str) -> bool:
        """Take a revision that is complete on disk, without the repository. Returns whether it was."""
        kept = self._store.manifests.usable(revision, digest=digest)
        if kept is None or self._store.missing_bytes(kept.manifest):
            return False
        self._store.write_configuration(kept.manifest)
        self._store.manifests.keep(kept, complete=True)
        self._take(kept, complete=True)
        return True

    def _adopt(self, published: PublishedManifest) -> None:
        """Fetch a whole revision before it replaces the one that serves; the first one serves variant by variant."""
        manifest, current = published.manifest, self.synced.manifest
        if current is None:
            self._store.write_configuration(manifest)
            self._store.manifests.keep(published, complete=False)
            self._complete(published)
            return
        for variant in by_size(manifest):
            self._fetch(manifest, variant)
        self._store.write_configuration(manifest)
        complete = self._store.is_complete(manifest)
        self._store.manifests.keep(published, complete=complete)
        self._take(published, complete=complete)
        if self.served_versions is not None:
            # The previous revision stays on disk: a rollback must not need the network.
            self._store.keep_only({manifest.revision, current.revision}, served_versions=self.served_versions)

    def _complete(self, published: PublishedManifest) -> None:
        """Fetch the missing variants of the serving revision, except damaged ones."""
        manifest, problem = published.manifest, None
        was_complete = self.synced.complete and self._published is published
        for variant in by_size(manifest):
            if self._store.has(manifest, variant):
                continue
            if self._retries.is_damaged(variant.sha256):
                continue
            try:
                self._fetch(manifest, variant)
            except IntegrityError as error:
                problem = Refusal(revision=manifest.revision, problem=str(error))
                self._retries.damage(variant.sha256)
                continue
            except (UserError, OSError) as error:
                if not is_disk_full(error):
                    raise
                problem = self._disk_full(manifest)
                self._retries.damage(variant.sha256)
                continue
            self._take(published, complete=False, refusal=self.synced.refusal)
        complete = self._store.is_complete(manifest)
        if complete and not was_complete:
            self._store.manifests.keep(published, complete=True)
        self._take(published, complete=complete, refusal=problem or self.synced.refusal)

    def _fetch(self, manifest: Manifest, variant: Variant) -> None:
        may_go_on = self._unless_reordered()
        if not may_go_on():
            raise TransferStopped("the agent is stopping")
        self._store.fetch(
            self._opened(),
            manifest,
            variant,
            maximum_bytes_per_second=self._limits.bytes_per_second,
            may_go_on=may_go_on,
        )

    def _take(self, published: PublishedManifest, *, complete: bool, refusal: Refusal | None = None) -> None:
        self._published = published
        available = self._store.available_names(published.manifest)
        self._update(
            Synced(
                manifest=published.manifest,
                available=available,
                complete=complete,
                refusal=refusal,
                profile=self._held_profile(published),
            )
        )

    def _held_profile(self, published: PublishedManifest) -> HeldProfile | None:
        return None if self._node_profiles is None else self._node_profiles.of(published)

    def _update(self, synced: Synced) -> None:
        if synced != self.synced:
            self.synced = synced
            self._changed()

    def _refuse(self, refusal: Refusal) -> None:
        self._update(replace(self.synced, refusal=refusal, unreachable=None))

    def _unreachable(self, problem: str) -> None:
        self._repository = None
        self._update(replace(self.synced, unreachable=problem))

    def _from_disk(self) -> Synced:
        """The last complete revision on disk; else the partial ordered one. What cannot be used is dropped."""
        published, refusal = None, None
        try:
            published = self._store.manifests.last_good()
        except Exception as error:  # a fault of ours must not keep the agent from starting, for ever
            refusal = Refusal(
                revision=None, problem=str(error) if isinstance(error, IntegrityError) else _unforeseen(error)
            )
            self._store.manifests.forget_last_good()
        ordered = self._ordered() if self._ordered is not None else None
        if published is None and ordered is not None:
            published = self._store.manifests.usable(ordered[0], digest=ordered[1])
        if published is None or (self._pinned and published.manifest.revision != self._pinned):
            return Synced(refusal=refusal)
        self._published = published
        available = self._store.available_names(published.manifest)
        complete = len(available) == len(published.manifest.single_node)
        return Synced(
            manifest=published.manifest,
            available=available,
            complete=complete,
            refusal=refusal,
            profile=self._held_profile(published),
        )


def _unforeseen(error: Exception) -> str:
    return printable(f"it ended in {type(error).__name__}: {str(error)[:300]}")
