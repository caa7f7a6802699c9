"""Bring what is published to local disk, verified, while the last good revision serves on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgefolio.errors import EdgefolioError, IntegrityError, UserError
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.repository import Repository
from edgefolio_edge.store import ModelStore, by_size

#: How often the repository's pointer is read.
POLL_SECONDS = 2.0
#: A refused revision is looked at again after this long (it may have been mended in place), or when the pointer moves.
REFUSED_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A revision that does not serve, because its bytes are not what they should be."""

    revision: int | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What is on disk. ``manifest`` is the revision to serve; ``available`` names its variants that can be loaded."""

    manifest: Manifest | None = None
    available: tuple[str, ...] = ()
    complete: bool = False
    refusal: Refusal | None = None
    #: Why the repository could not be read at the last try, ``None`` if it was.
    unreachable: str | None = None


class Synchronizer:
    """Follows the repository in a thread of its own. ``synced`` is replaced as a whole, so reading it needs no lock."""

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        store: ModelStore,
        *,
        pinned_revision: int | None = None,
        ordered: Callable[[], tuple[int, str] | None] | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """``open_repository`` is called anew after a failure; ``pinned_revision`` is taken instead of the pointer's.

        ``ordered`` names the revision and the digest of its manifest from outside the repository, which is then not
        asked for either.
        """
        self._open = open_repository
        self._repository: Repository | None = None
        self._store = store
        self._pinned = pinned_revision
        self._ordered = ordered
        self._poll_seconds = poll_seconds
        self._refused: tuple[tuple[int, str], float] | None = None
        self._damaged: dict[str, float] = {}
        self._digest: tuple[Manifest, str] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.synced = self._from_disk()

    def start(self) -> None:
        """Follow the repository from now on."""
        self._thread = threading.Thread(target=self._follow, name="synchronizer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following. A transfer under way goes on where it stopped the next time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def step(self, *, on_variant: Callable[[str], None] | None = None) -> Synced:
        """Look once, and fetch what is missing. Raises nothing that a user or a network can cause."""
        try:
            self._step(on_variant or (lambda _name: None))
        except IntegrityError as error:
            self._refuse(None, error)
        except (UserError, OSError) as error:
            self._repository = None
            self.synced = replace(self.synced, unreachable=str(error))
        return self.synced

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self.step()
            self._stopping.wait(self._poll_seconds)

    def _step(self, on_variant: Callable[[str], None]) -> None:
        if self._repository is None:
            self._repository = self._open()
        wanted = self._wanted(self._repository)
        if wanted is None:
            self.synced = replace(self.synced, unreachable="nothing is published for this model yet")
            return
        revision, digest = wanted
        current = self.synced.manifest
        if current is not None and current.revision == revision and self._digest_of(current) == digest:
            self._complete(self._repository, current, on_variant)
            if self.synced.refusal is not None and self.synced.complete:
                self.synced = replace(self.synced, refusal=None)
            return
        if self._refused is not None and self._refused[0] == wanted:
            if time.monotonic() - self._refused[1] < REFUSED_SECONDS:
                return
            self._refused = None
        try:
            manifest = self._repository.manifest(self._store.model, revision, sha256=digest or None)
            self._adopt(self._repository, manifest, on_variant)
        except IntegrityError as error:
            self._refused = (wanted, time.monotonic())
            self._refuse(revision, error)

    def _wanted(self, repository: Repository) -> tuple[int, str] | None:
        if self._ordered is not None:
            return self._ordered()
        current = self.synced.manifest
        if self._pinned and current is not None and current.revision == self._pinned:
            return current.revision, self._digest_of(current)
        pointer = repository.current(self._store.model)
        if self._pinned and (pointer is None or pointer.revision != self._pinned):
            # The pointer vouches for the current revision alone; an older one is taken as it stands.
            manifest = repository.manifest(self._store.model, self._pinned)
            return manifest.revision, self._digest_of(manifest)
        return None if pointer is None else (pointer.revision, pointer.manifest_sha256)

    def _adopt(self, repository: Repository, manifest: Manifest, on_variant: Callable[[str], None]) -> None:
        """Fetch a whole revision before it replaces one that serves; the very first serves as soon as it can."""
        if self.synced.manifest is None:
            self._store.write_configuration(manifest)
            self._store.keep_manifest(manifest, complete=False)
            self._complete(repository, manifest, on_variant)
            return
        for variant in by_size(manifest):
            self._stop_if_told()
            self._store.fetch(repository, manifest, variant)
            on_variant(variant.name)
        self._store.write_configuration(manifest)
        available = _names(self._store, manifest)
        complete = len(available) == len(manifest.variants)
        self._store.keep_manifest(manifest, complete=complete)
        self.synced = Synced(manifest=manifest, available=available, complete=complete)

    def _complete(self, repository: Repository, manifest: Manifest, on_variant: Callable[[str], None]) -> None:
        """Fetch what is missing of the revision that serves; a damaged variant stays out, the others serve."""
        problem: IntegrityError | None = None
        was_complete = self.synced.complete and self.synced.manifest == manifest
        for variant in by_size(manifest):
            self._stop_if_told()
            if self._store.has(manifest, variant):
                continue
            if time.monotonic() - self._damaged.get(variant.sha256, -REFUSED_SECONDS) < REFUSED_SECONDS:
                continue
            try:
                self._store.fetch(repository, manifest, variant)
            except IntegrityError as error:
                problem = error
                self._damaged[variant.sha256] = time.monotonic()
                continue
            on_variant(variant.name)
            self.synced = Synced(manifest=manifest, available=_names(self._store, manifest))
        available = _names(self._store, manifest)
        complete = len(available) == len(manifest.variants)
        if complete and not was_complete:
            self._store.keep_manifest(manifest, complete=True)
        refusal = self.synced.refusal
        if problem is not None:
            refusal = Refusal(revision=manifest.revision, problem=str(problem))
        self.synced = Synced(manifest=manifest, available=available, complete=complete, refusal=refusal)

    def _refuse(self, revision: int | None, error: EdgefolioError) -> None:
        self.synced = replace(self.synced, refusal=Refusal(revision=revision, problem=str(error)), unreachable=None)

    def _digest_of(self, manifest: Manifest) -> str:
        if self._digest is None or self._digest[0] is not manifest:
            self._digest = (manifest, sha256_of(manifest.to_bytes()))
        return self._digest[1]

    def _stop_if_told(self) -> None:
        if self._stopping.is_set():
            raise OSError("the agent is stopping")

    def _from_disk(self) -> Synced:
        manifest = self._store.last_good()
        if manifest is None or (self._pinned and manifest.revision != self._pinned):
            return Synced()
        available = _names(self._store, manifest)
        return Synced(manifest=manifest, available=available, complete=len(available) == len(manifest.variants))


def _names(store: ModelStore, manifest: Manifest) -> tuple[str, ...]:
    return tuple(variant.name for variant in store.available(manifest))
