"""Kept manifests: those of the revisions on local disk, and the pointer to the last complete one.

<revision>.json      the manifest of every revision that is kept
good.json            the last complete revision: it serves when the repository is away
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edgefolio.errors import EdgefolioError, IntegrityError
from edgefolio.files import write_durably
from edgefolio.manifest import VERSIONS_PER_REVISION, CurrentPointer, Manifest, PublishedManifest
from edgefolio_edge.models.rehearsal import require_usable

#: The option that names the local disk in errors.
FIELD = "--state-dir"


class KeptManifests:
    """The manifests of one model in a directory."""

    def __init__(self, directory: Path, *, model: str) -> None:
        self._directory = directory
        self._model = model
        #: The last two manifests that were read, with size, time and inode of their files.
        self._read: dict[int, tuple[tuple[int, int, int], PublishedManifest]] = {}

    @property
    def directory(self) -> Path:
        """Where they are kept."""
        return self._directory

    def keep(self, published: PublishedManifest, *, complete: bool) -> None:
        """Keep the manifest; a ``complete`` revision becomes the one that serves when the repository is away."""
        manifest = published.manifest
        path = self._path(manifest.revision)
        if not path.is_file() or path.read_bytes() != published.raw:
            write_durably(path, published.raw, field=FIELD)
        if complete:
            pointer = CurrentPointer(model=manifest.model, revision=manifest.revision, manifest_sha256=published.sha256)
            write_durably(self._good_path, pointer.model_dump_json(by_alias=True).encode(), field=FIELD)

    def last_good(self) -> PublishedManifest | None:
        """The manifest of the last complete revision; ``None`` if there is none.

        Raises :class:`IntegrityError` if what is on disk is damaged, or nothing that could be served from.
        """
        try:
            pointer = CurrentPointer.from_bytes(self._good_path.read_bytes(), location=str(self._good_path))
        except OSError:
            return None
        location, kept = str(self._path(pointer.revision)), self.of_revision(pointer.revision)
        if kept is None or kept.sha256 != pointer.manifest_sha256 or kept.manifest.model != self._model:
            raise IntegrityError(
                "the manifest of the last good revision is missing or damaged.",
                location=location,
                remedy="It is fetched again while the repository can be reached.",
            )
        require_usable(kept.manifest, location=location)
        return kept

    def forget_last_good(self) -> None:
        """Let no revision be the last good one."""
        self._good_path.unlink(missing_ok=True)

    def of_version(self, version: int) -> Manifest | None:
        """The kept manifest of the revision of ``version``, if present and intact."""
        kept = self.of_revision(version // VERSIONS_PER_REVISION)
        return kept.manifest if kept is not None and kept.manifest.model == self._model else None

    def usable(self, revision: int, *, digest: str) -> PublishedManifest | None:
        """The kept manifest of ``revision``, if its bytes have this digest and can be worked with."""
        kept = self.of_revision(revision)
        if kept is None or kept.sha256 != digest:
            return None
        try:
            require_usable(kept.manifest, location=str(self._path(revision)))
        except IntegrityError:
            return None
        return kept

    def of_revision(self, revision: int) -> PublishedManifest | None:
        """The kept manifest of ``revision`` as it was published, if present and intact."""
        path = self._path(revision)
        try:
            status = path.stat()
            signature = (status.st_size, status.st_mtime_ns, status.st_ino)
            known = self._read.get(revision)
            if known is not None and known[0] == signature:
                return known[1]
            published = PublishedManifest.from_bytes(path.read_bytes(), location=str(path))
        except (OSError, EdgefolioError):
            return None
        # Megabytes of probes, and each cycle asks for that of an older revision while it serves.
        self._read = {**dict(list(self._read.items())[-1:]), revision: (signature, published)}
        return published

    def revisions(self) -> tuple[int, ...]:
        """The revisions that a manifest is kept of."""
        return tuple(int(path.stem) for path in self._directory.glob("[0-9]*.json") if path.stem.isdecimal())

    def keep_only(self, revisions: Collection[int]) -> None:
        """Remove the manifests of all other revisions."""
        for path in self._directory.glob("[0-9]*.json"):
            if path.stem.isdecimal() and int(path.stem) not in revisions:
                path.unlink(missing_ok=True)

    @property
    def _good_path(self) -> Path:
        return self._directory / "good.json"

    def _path(self, revision: int) -> Path:
        return self._directory / f"{revision}.json"
