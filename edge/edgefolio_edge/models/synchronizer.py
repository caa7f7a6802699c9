"""Synchronizer of the local model store with a repository; the last good revision serves on meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgefolio.errors import EdgefolioError, IntegrityError, UserError
from edgefolio.manifest import Manifest, Variant, sha256_of
from edgefolio.repository import Repository
from edgefolio.repository.remote.calls import TransferStopped, interruptible
from edgefolio_edge import reasons
from edgefolio_edge.models.model_store import ModelStore, by_size

#: How often the repository's pointer is read.
POLL_SECONDS = 2.0
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
class SyncLimits:
    """Limits of a node. ``jitter_seconds`` spreads the fetches of a new revision over the nodes."""

    storage_bytes: int | None = None
    bytes_per_second: int | None = None
    jitter_seconds: float = 0.0


class InsufficientStorageError(EdgefolioError):
    """A revision needs more storage than the node grants."""


class Synchronizer:
    """Polls the repository in a thread of its own. ``synced`` is replaced as a whole, so reading it needs no lock."""

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        store: ModelStore,
        *,
        pinned_revision: int | None = None,
        ordered: Callable[[], tuple[int, str] | None] | None = None,
        limits: SyncLimits | None = None,
        poll_seconds: float = POLL_SECONDS,
        woken: threading.Event | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``open_repository`` is called anew after a failure; ``pinned_revision`` is taken instead of the pointer's.

        ``ordered`` names the revision and its manifest's digest from outside the repository, which is then asked
        only for files not on disk. Setting ``woken`` makes it poll at once. ``changed`` is called after each change
        of ``synced``, in the synchronizer's thread.
        """
        self._open = open_repository
        self._repository: Repository | None = None
        self._store = store
        self._pinned = pinned_revision
        self._ordered = ordered
        self._limits = limits or SyncLimits()
        self._poll_seconds = poll_seconds
        self._refused: tuple[tuple[int, str], float] | None = None
        self._not_before: tuple[tuple[int, str], float] | None = None
        self._damaged: dict[str, float] = {}
        self._digest: tuple[Manifest, str] | None = None
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
        """Poll once, and fetch missing files. Raises nothing that a user or a network can cause."""
        try:
            self._step()
        except TransferStopped:
            pass
        except IntegrityError as error:
            self._refuse(Refusal(revision=None, problem=str(error)))
        except (UserError, OSError) as error:
            self._repository = None
            self._update(replace(self.synced, unreachable=str(error)))
        return self.synced

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
        wanted = self._wanted()
        if wanted is None:
            unreachable = None if self._ordered is not None else "nothing is published for this model yet"
            self._update(replace(self.synced, unreachable=unreachable))
            return
        revision, digest = wanted
        refused = self.synced.refusal
        if refused is not None and refused.revision not in (None, revision):
            self._update(replace(self.synced, refusal=None))  # it is no longer wanted
        current = self.synced.manifest
        if current is not None and current.revision == revision and self._digest_of(current) == digest:
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
        try:
            manifest = self._opened().manifest(self._store.model, revision, sha256=digest or None)
            self._require_room(manifest)
            self._adopt(manifest)
        except IntegrityError as error:
            self._refused = (wanted, time.monotonic())
            self._refuse(Refusal(revision=revision, problem=str(error)))
        except InsufficientStorageError as error:
            self._refused = (wanted, time.monotonic())
            self._refuse(Refusal(revision=revision, problem=str(error), reason=reasons.INSUFFICIENT_STORAGE))

    def _opened(self) -> Repository:
        if self._repository is None:
            self._repository = self._open()
        return self._repository

    def _wanted(self) -> tuple[int, str] | None:
        if self._ordered is not None:
            return self._ordered()
        current = self.synced.manifest
        if self._pinned and current is not None and current.revision == self._pinned:
            return current.revision, self._digest_of(current)
        pointer = self._opened().current(self._store.model)
        if self._pinned and (pointer is None or pointer.revision != self._pinned):
            # The pointer verifies the current revision alone; an older one is trusted as found.
            manifest = self._opened().manifest(self._store.model, self._pinned)
            return manifest.revision, self._digest_of(manifest)
        return None if pointer is None else (pointer.revision, pointer.manifest_sha256)

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
        manifest = self._store.manifest_kept(revision, digest=digest)
        if manifest is None or self._store.missing_bytes(manifest):
            return False
        self._store.write_configuration(manifest)
        self._store.keep_manifest(manifest, complete=True)
        self._update(Synced(manifest=manifest, available=_names(self._store, manifest), complete=True))
        return True

    def _require_room(self, manifest: Manifest) -> None:
        """Raise :class:`InsufficientStorageError` if ``manifest`` does not fit beside what serves."""
        limit = self._limits.storage_bytes
        if limit is None:
            return
        current = self.synced.manifest
        missing = self._store.missing_bytes(manifest)
        if self._store.occupied_bytes() + missing > limit and self.served_versions is not None:
            kept = {manifest.revision, *([current.revision] if current is not None else [])}
            self._store.keep_only(kept, served_versions=self.served_versions)
        occupied = self._store.occupied_bytes()
        if occupied + missing > limit:
            beside = f" beside the {_mebibytes(occupied)} that are in use" if occupied else ""
            raise InsufficientStorageError(
                f"revision {manifest.revision} needs {_mebibytes(missing)}{beside}; {_mebibytes(limit)} are granted. "
                "Raise spec.serving.managed.storage.sizeLimit, or make fewer or smaller variants."
            )

    def _adopt(self, manifest: Manifest) -> None:
        """Fetch a whole revision before it replaces the one that serves; the first one serves variant by variant."""
        current = self.synced.manifest
        if current is None:
            self._store.write_configuration(manifest)
            self._store.keep_manifest(manifest, complete=False)
            self._complete(manifest)
            return
        for variant in by_size(manifest):
            self._fetch(manifest, variant)
        self._store.write_configuration(manifest)
        available = _names(self._store, manifest)
        complete = len(available) == len(manifest.variants)
        self._store.keep_manifest(manifest, complete=complete)
        self._update(Synced(manifest=manifest, available=available, complete=complete))
        if self.served_versions is not None:
            # The previous revision stays on disk: a rollback must not need the network.
            self._store.keep_only({manifest.revision, current.revision}, served_versions=self.served_versions)

    def _complete(self, manifest: Manifest) -> None:
        """Fetch the missing variants of the serving revision, except damaged ones."""
        problem: IntegrityError | None = None
        was_complete = self.synced.complete and self.synced.manifest == manifest
        for variant in by_size(manifest):
            if self._store.has(manifest, variant):
                continue
            if time.monotonic() - self._damaged.get(variant.sha256, -REFUSED_SECONDS) < REFUSED_SECONDS:
                continue
            try:
                self._fetch(manifest, variant)
            except IntegrityError as error:
                problem = error
                self._damaged[variant.sha256] = time.monotonic()
                continue
            self._update(Synced(manifest=manifest, available=_names(self._store, manifest)))
        available = _names(self._store, manifest)
        complete = len(available) == len(manifest.variants)
        if complete and not was_complete:
            self._store.keep_manifest(manifest, complete=True)
        refusal = self.synced.refusal
        if problem is not None:
            refusal = Refusal(revision=manifest.revision, problem=str(problem))
        self._update(Synced(manifest=manifest, available=available, complete=complete, refusal=refusal))

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

    def _update(self, synced: Synced) -> None:
        if synced != self.synced:
            self.synced = synced
            self._changed()

    def _refuse(self, refusal: Refusal) -> None:
        self._update(replace(self.synced, refusal=refusal, unreachable=None))

    def _digest_of(self, manifest: Manifest) -> str:
        if self._digest is None or self._digest[0] is not manifest:
            self._digest = (manifest, sha256_of(manifest.to_bytes()))
        return self._digest[1]

    def _from_disk(self) -> Synced:
        """The last complete revision on disk; else the partial ordered one."""
        manifest = self._store.last_good()
        ordered = self._ordered() if self._ordered is not None else None
        if manifest is None and ordered is not None:
            manifest = self._store.manifest_kept(ordered[0], digest=ordered[1])
        if manifest is None or (self._pinned and manifest.revision != self._pinned):
            return Synced()
        available = _names(self._store, manifest)
        return Synced(manifest=manifest, available=available, complete=len(available) == len(manifest.variants))


def _names(store: ModelStore, manifest: Manifest) -> tuple[str, ...]:
    return tuple(variant.name for variant in store.available(manifest))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
