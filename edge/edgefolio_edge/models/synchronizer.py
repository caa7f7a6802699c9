"""Synchronizer of the local model store with a repository; the last good revision serves on meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgefolio.errors import IntegrityError, UserError
from edgefolio.files import is_disk_full
from edgefolio.manifest import VERSIONS_PER_REVISION, Manifest, PublishedManifest, Variant
from edgefolio.repository import Repository, layout
from edgefolio.repository.remote.calls import TransferStopped, interruptible
from edgefolio.untrusted.text import printable
from edgefolio_edge import reasons
from edgefolio_edge.models.model_store import ModelStore, by_size
from edgefolio_edge.models.rehearsal import require_usable
from edgefolio_edge.models.room import InsufficientStorageError, disk_full, require_room

#: How often the repository's pointer is read.
POLL_SECONDS = 2.0
#: A revision that could not be served is tried again after this long, or when another one was wanted meanwhile.
REJECTED_SECONDS = 3600.0
#: A refused revision is tried again after this long (it may have been repaired in place), or when the pointer moves.
REFUSED_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refused revision: its bytes are not the manifest's, or it does not fit on this node."""

    revision: int | None
    problem: str
    reason: str = reasons.REVISION_REFUSED


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What is on disk. ``manifest`` is the revision to serve; ``available`` names its variants that can be loaded."""

    manifest: Manifest | None = None
    available: tuple[str, ...] = ()
    complete: bool = False
    refusal: Refusal | None = None
    #: Why the repository could not be read at the last try, ``None`` if it was.
    unreachable: str | None = None

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
class _Rejection:
    """A revision that the agent could not serve, and the one that serves instead. ``wanted`` is as it was ordered."""

    revision: int
    problem: str
    instead: Manifest
    at: float
    wanted: tuple[int, str] | None = None


@dataclass(frozen=True, kw_only=True)
class SyncLimits:
    """Limits of a node. ``jitter_seconds`` spreads the fetches of a new revision over the nodes."""

    storage_bytes: int | None = None
    bytes_per_second: int | None = None
    jitter_seconds: float = 0.0


class Synchronizer:
    """Polls the repository in a thread of its own. ``synced`` is replaced as a whole, so reading it needs no lock."""

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        store: ModelStore,
        *,
        pinned_revision: int | None = None,
        may_go_back: bool = False,
        ordered: Callable[[], tuple[int, str] | None] | None = None,
        limits: SyncLimits | None = None,
        poll_seconds: float = POLL_SECONDS,
        woken: threading.Event | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``open_repository`` is called anew after a failure; ``pinned_revision`` is taken instead of the pointer's.

        A pointer that names an older revision than the last good one is refused unless it ``may_go_back``: whoever
        can write the repository could bring back a revision that was replaced for a reason.
        ``ordered`` names the revision and its manifest's digest from outside the repository, which is then asked
        only for files not on disk. Setting ``woken`` makes it poll at once. ``changed`` is called after each change
        of ``synced``, in the synchronizer's thread.
        """
        self._open = open_repository
        self._repository: Repository | None = None
        self._store = store
        self._pinned = pinned_revision
        self._may_go_back = may_go_back
        self._ordered = ordered
        self._limits = limits or SyncLimits()
        self._poll_seconds = poll_seconds
        self._refused: tuple[tuple[int, str], float] | None = None
        self._rejected: _Rejection | None = None
        self._unservable: int | None = None
        self._not_before: tuple[tuple[int, str], float] | None = None
        self._damaged: dict[str, float] = {}
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
            self._rejected = _Rejection(revision=revision, problem=problem, instead=instead, at=time.monotonic())
            self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with interruptible(self._unless_reordered()):
                self.step()
            seconds = self._poll_seconds
            if self._not_before is not None:
                seconds = min(seconds, max(0.05, self._not_before[1] - time.monotonic()))
            self._woken.wait(seconds)
            self._woken.clear()

    def _unless_reordered(self) -> Callable[[], bool]:
        """Whether the order is still the present one: another must not wait for a store that does not answer."""
        order = self._ordered() if self._ordered is not None else None
        return lambda: not self._stopping.is_set() and (self._ordered is None or self._ordered() == order)

    def _step(self) -> None:
        current, rejected = self._published, self._rejected
        if rejected is not None and current is not None and current.manifest.revision == rejected.revision:
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
        if self._refused is not None and self._refused[0] == wanted:
            if time.monotonic() - self._refused[1] < REFUSED_SECONDS:
                return
            self._refused = None
        if self._is_too_early(wanted):
            return
        problem = self._problem_of(revision, digest)
        if problem is not None:
            self._refused = (wanted, time.monotonic())
            self._refuse(problem)

    def _went_back(self, current: Manifest, revision: int) -> Refusal | None:
        """Why the pointer's ``revision``, older than ``current``, is not followed. Orders and pins may go back."""
        if revision >= current.revision or self._may_go_back or self._pinned or self._ordered is not None:
            return None
        if not self._may_have_served(current):
            return None
        return Refusal(
            revision=revision,
            problem=f"The repository says revision {revision}, and revision {current.revision} was served before. "
            "Publish a new revision, set spec.pinnedRevision to go back, or start with --allow-rollback.",
            reason=reasons.REVISION_WENT_BACK,
        )

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

    def _is_rejected(self, wanted: tuple[int, str]) -> bool:
        """Whether the agent could not serve ``wanted``, so that another revision serves instead."""
        found = self._rejected
        if found is None:
            return False
        if found.wanted is None and found.revision == wanted[0]:
            self._rejected = found = replace(found, wanted=wanted)
        if found.wanted != wanted or time.monotonic() - found.at >= REJECTED_SECONDS:
            self._rejected = None
            return False
        self._serve_instead(found)
        assert self._published is not None
        self._complete(self._published)  # what serves on may be damaged meanwhile
        return True

    def _serve_instead(self, found: _Rejection) -> None:
        """Make the revision that serves instead of a rejected one the current one."""
        refusal = Refusal(revision=found.revision, problem=found.problem)
        if self.synced.manifest != found.instead or self.synced.refusal != refusal:
            published = self._store.kept(found.instead.revision) or PublishedManifest.of(found.instead)
            self._store.write_configuration(found.instead)
            self._store.keep_manifest(published, complete=True)
            complete = len(_names(self._store, found.instead)) == len(found.instead.variants)
            self._take(published, complete=complete, refusal=refusal)

    def _opened(self) -> Repository:
        if self._repository is None:
            self._repository = self._open()
        return self._repository

    def _wanted(self) -> tuple[int, str] | None:
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

    def _is_too_early(self, wanted: tuple[int, str]) -> bool:
        """Whether the jitter delays the fetch of ``wanted``. A node that serves nothing yet never waits."""
        if self.synced.manifest is None or not self._limits.jitter_seconds:
            return False
        if self._not_before is None or self._not_before[0] != wanted:
            self._not_before = (wanted, time.monotonic() + random.uniform(0, self._limits.jitter_seconds))
        if time.monotonic() < self._not_before[1]:
            return True
        self._not_before = None
        return False

    def _restores_from_disk(self, revision: int, digest: str) -> bool:
        """Take a revision that is complete on disk, without the repository. Returns whether it was."""
        kept = self._store.manifest_kept(revision, digest=digest)
        if kept is None or self._store.missing_bytes(kept.manifest):
            return False
        self._store.write_configuration(kept.manifest)
        self._store.keep_manifest(kept, complete=True)
        self._take(kept, complete=True)
        return True

    def _adopt(self, published: PublishedManifest) -> None:
        """Fetch a whole revision before it replaces the one that serves; the first one serves variant by variant."""
        manifest, current = published.manifest, self.synced.manifest
        if current is None:
            self._store.write_configuration(manifest)
            self._store.keep_manifest(published, complete=False)
            self._complete(published)
            return
        for variant in by_size(manifest):
            self._fetch(manifest, variant)
        self._store.write_configuration(manifest)
        complete = len(_names(self._store, manifest)) == len(manifest.variants)
        self._store.keep_manifest(published, complete=complete)
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
            if time.monotonic() - self._damaged.get(variant.sha256, -REFUSED_SECONDS) < REFUSED_SECONDS:
                continue
            try:
                self._fetch(manifest, variant)
            except IntegrityError as error:
                problem = Refusal(revision=manifest.revision, problem=str(error))
                self._damaged[variant.sha256] = time.monotonic()
                continue
            except (UserError, OSError) as error:
                if not is_disk_full(error):
                    raise
                problem = self._disk_full(manifest)
                self._damaged[variant.sha256] = time.monotonic()
                continue
            self._take(published, complete=False, refusal=self.synced.refusal)
        complete = len(_names(self._store, manifest)) == len(manifest.variants)
        if complete and not was_complete:
            self._store.keep_manifest(published, complete=True)
        self._take(published, complete=complete, refusal=problem or self.synced.refusal)

    def _fetch(self, manifest: Manifest, variant: Variant) -> None:
        began_with = self._ordered() if self._ordered is not None else None

        def may_go_on() -> bool:
            # A new order must not wait for the rest of a slow transfer.
            same = self._ordered is None or self._ordered() == began_with
            return same and not self._stopping.is_set()

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
        available = _names(self._store, published.manifest)
        self._update(Synced(manifest=published.manifest, available=available, complete=complete, refusal=refusal))

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
            published = self._store.last_good()
        except Exception as error:  # a fault of ours must not keep the agent from starting, for ever
            refusal = Refusal(
                revision=None, problem=str(error) if isinstance(error, IntegrityError) else _unforeseen(error)
            )
            self._store.forget_last_good()
        ordered = self._ordered() if self._ordered is not None else None
        if published is None and ordered is not None:
            published = self._store.manifest_kept(ordered[0], digest=ordered[1])
        if published is None or (self._pinned and published.manifest.revision != self._pinned):
            return Synced(refusal=refusal)
        self._published = published
        available = _names(self._store, published.manifest)
        complete = len(available) == len(published.manifest.variants)
        return Synced(manifest=published.manifest, available=available, complete=complete, refusal=refusal)


def _names(store: ModelStore, manifest: Manifest) -> tuple[str, ...]:
    return tuple(variant.name for variant in store.available(manifest))


def _unforeseen(error: Exception) -> str:
    return printable(f"it ended in {type(error).__name__}: {str(error)[:300]}")
