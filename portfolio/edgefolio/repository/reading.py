"""Reader of published portfolios: pointer, manifests and files, each verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import CurrentPointer, Manifest, PublishedManifest, Variant, sha256_of
from edgefolio.repository import layout
from edgefolio.repository.fetching import fetch_verified
from edgefolio.repository.storage import Storage, open_storage
from edgefolio.repository.version_files import files_of

if TYPE_CHECKING:
    from edgefolio.repository.signature import VerificationKey

#: Larger ones are refused unread: a manifest is some 100 KB, a pointer some 100 bytes.
MAXIMUM_MANIFEST_BYTES = 64 << 20
MAXIMUM_POINTER_BYTES = 64 << 10


class Repository:
    """The published portfolios below one URI."""

    def __init__(self, storage: Storage, *, verification_key: VerificationKey | None = None) -> None:
        self.storage = storage
        self.verification_key = verification_key

    @classmethod
    def open(
        cls, uri: str, *, field: str = "--repository", verification_key: VerificationKey | None = None
    ) -> Repository:
        """The repository at ``uri``: ``./directory``, ``/directory``, ``file:///directory``, ``s3://bucket/prefix``.

        With a ``verification_key`` only manifests that it has signed are read.

        Raises :class:`UserError` (for ``field``) for an unknown scheme, or a place that is missing or cannot be read.
        """
        return cls(open_storage(uri, field=field), verification_key=verification_key)

    @property
    def uri(self) -> str:
        """The URI as given."""
        return self.storage.uri

    def location(self, path: str) -> str:
        """``path`` as a user finds it."""
        return f"{self.uri.rstrip('/')}/{path}"

    def models(self) -> tuple[str, ...]:
        """Names of the models that have a current revision."""
        found = self.storage.names(layout.REVISIONS)
        return tuple(name for name in found if _is_model(name) and layout.POINTER in self._revision_files(name))

    def revisions(self, model: str) -> tuple[int, ...]:
        """Numbers of the revisions of ``model`` whose manifest is there, ascending."""
        numbers = (layout.number_of(name, layout.MANIFEST_SUFFIX) for name in self._revision_files(model))
        return tuple(sorted(number for number in numbers if number is not None))

    def current(self, model: str) -> CurrentPointer | None:
        """The pointer of ``model``; ``None`` if nothing was published yet.

        Raises :class:`IntegrityError` if it is broken, of another schema, or another model's.
        """
        path = layout.pointer_path(model)
        raw = self.storage.read(path, maximum_bytes=MAXIMUM_POINTER_BYTES)
        if raw is None:
            return None
        pointer = parse_pointer(raw, location=self.location(path))
        if pointer.model != model:
            raise IntegrityError(f"the pointer is of model {pointer.model!r}.", location=self.location(path))
        return pointer

    def manifest(self, model: str, revision: int, *, sha256: str | None = None) -> Manifest:
        """The manifest of ``revision`` alone; see :meth:`published_manifest`."""
        return self.published_manifest(model, revision, sha256=sha256).manifest

    def published_manifest(self, model: str, revision: int, *, sha256: str | None = None) -> PublishedManifest:
        """The manifest of ``revision``, its bytes compared with the digest ``sha256`` where one is given.

        Raises :class:`UserError` if there is no such revision, :class:`IntegrityError` if it is wrong:
        another digest, schema version, model or revision, a variant's path that leaves the repository, or without the
        signature of the repository's verification key.
        """
        path = layout.manifest_path(model, revision)
        raw = self.storage.read(path, maximum_bytes=MAXIMUM_MANIFEST_BYTES)
        if raw is None:
            known = _listed(lambda: self.revisions(model))
            raise UserError(
                f"model {model!r} has no revision {revision} here.",
                field=self.storage.field,
                value=self.uri,
                remedy=f"Name a published revision ({known}), or publish one with `edgefolio make`.",
            )
        location = self.location(path)
        if len(raw) > MAXIMUM_MANIFEST_BYTES:
            raise IntegrityError(f"the manifest is larger than {MAXIMUM_MANIFEST_BYTES} bytes.", location=location)
        if sha256 is not None and sha256_of(raw) != sha256:
            raise IntegrityError(
                f"the manifest's digest is {sha256_of(raw)}, expected {sha256}.",
                location=location,
            )
        if self.verification_key is not None:
            signature = self.storage.read(
                layout.signature_path(model, revision), maximum_bytes=layout.MAXIMUM_SIGNATURE_BYTES
            )
            self.verification_key.require(raw, signature, location=location)
        published = PublishedManifest.from_bytes(raw, location=location)
        manifest = published.manifest
        if manifest.model != model or manifest.revision != revision:
            raise IntegrityError(
                f"it is the manifest of {manifest.model!r}, revision {manifest.revision}.", location=location
            )
        return published

    def digest_of_manifest(self, model: str, revision: int) -> str | None:
        """The sha256 of the manifest's bytes as they lie here; ``None`` if there is no such revision."""
        raw = self.storage.read(layout.manifest_path(model, revision), maximum_bytes=MAXIMUM_MANIFEST_BYTES)
        return sha256_of(raw) if raw is not None else None

    def current_manifest(self, model: str) -> tuple[CurrentPointer, Manifest]:
        """The pointer and the manifest it names, verified against it. Raises as the two do, and if there is none."""
        pointer = self.current(model)
        if pointer is None:
            known = _listed(self.models)
            raise UserError(
                f"nothing is published here for model {model!r}.",
                field=self.storage.field,
                value=self.uri,
                remedy=f"Publish it with `edgefolio make`, or name a published model ({known}).",
            )
        return pointer, self.manifest(model, pointer.revision, sha256=pointer.manifest_sha256)

    def fetch(
        self,
        manifest: Manifest,
        variant: Variant,
        destination: Path,
        *,
        maximum_bytes_per_second: int | None = None,
        may_go_on: Callable[[], bool] = lambda: True,
        shard: int | None = None,
    ) -> Path:
        """Download the variant's file to ``destination``, which exists only once size and digest are verified.

        The files of a split's shards follow the plan, into the same folder: they are all there once this returns, or
        those of the worker ``shard`` alone.

        An interrupted transfer is resumed. A file that is already there with the right digest is kept.
        ``may_go_on`` is polled; once it is false, :class:`~edgefolio.repository.fetching.TransferStopped`
        is raised. Raises :class:`IntegrityError` if the bytes are not the manifest's (nothing of them is left), and
        :class:`UserError` if the repository cannot be read or the disk is full.
        """

        def fetched(path: str, local: Path, *, sha256: str, size_bytes: int) -> Path:
            return fetch_verified(
                self.storage,
                path,
                local,
                sha256=sha256,
                size_bytes=size_bytes,
                maximum_bytes_per_second=maximum_bytes_per_second,
                may_go_on=may_go_on,
            )

        path = layout.variant_path(manifest.model, variant.file)
        fetched(path, destination, sha256=variant.sha256, size_bytes=variant.size_bytes)
        for file in files_of(manifest.model, variant, destination, shard=shard)[:-1]:
            fetched(file.path, file.local, sha256=file.sha256, size_bytes=file.size_bytes)
        return destination

    def _revision_files(self, model: str) -> tuple[str, ...]:
        return self.storage.names(layout.revisions_folder(model))


def _listed(names: Callable[[], Iterable[object]]) -> str:
    """The names in one line. Reading needs no right to list; a store that refuses it still says what is missing."""
    try:
        return ", ".join(str(name) for name in names()) or "none"
    except UserError:
        return "which cannot be listed here"


def parse_pointer(raw: bytes, *, location: str) -> CurrentPointer:
    """The pointer in ``raw``. Raises :class:`IntegrityError`."""
    if len(raw) > MAXIMUM_POINTER_BYTES:
        raise IntegrityError(f"the pointer is larger than {MAXIMUM_POINTER_BYTES} bytes.", location=location)
    return CurrentPointer.from_bytes(raw, location=location)


def _is_model(name: str) -> bool:
    try:
        layout.checked_model(name)
    except UserError:
        return False
    return True
