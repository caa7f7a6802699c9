"""Publish a revision: reserve a number, write the variants, then the manifest, and the pointer last.

Interrupted at any instant it leaves the previous revision current; started again with the same content it goes on with
the number it had reserved. A number, once reserved for some content, never carries other bytes. The pointer only ever
moves forward, so a slow publisher never takes readers back to what a faster one has replaced meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from edgefolio.errors import IntegrityError, UserError
from edgefolio.manifest import (
    VERSIONS_PER_REVISION,
    CurrentPointer,
    Digest,
    Manifest,
    Record,
    Segment,
    Variant,
    sha256_of,
)
from edgefolio.repository import layout
from edgefolio.repository.fetching import digest_and_size, digest_of_file
from edgefolio.repository.reading import MAXIMUM_MANIFEST_BYTES, MAXIMUM_POINTER_BYTES, Repository, parse_pointer
from edgefolio.repository.retention import remove_old_revisions
from edgefolio.repository.storage import local_root, open_storage
from edgefolio.repository.version_files import files_of

if TYPE_CHECKING:
    from edgefolio.repository.signature import SigningKey

#: How many of the newest reservations are searched for the same content.
_RESERVATIONS_SEARCHED = 64
_ATTEMPTS_TO_RESERVE = 1000
#: Bytes by which the numbers of a revision may make its manifest longer than the first one's.
_LONGEST_NUMBERS = 4096


class Reservation(Record):
    """A spent revision number and the digest of its content."""

    schema_version: Literal["edgefolio.dev/reservation/v1"] = "edgefolio.dev/reservation/v1"
    model: Segment
    revision: Annotated[int, Field(ge=1)]
    content_sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Published:
    """Outcome of :meth:`Publication.publish`.

    ``is_current`` is false if another publisher reserved a later number and finished first; ``already_published`` is
    true if the same content was current before and nothing had to be written.
    """

    pointer: CurrentPointer
    manifest: Manifest
    is_current: bool
    already_published: bool
    removed_revisions: tuple[int, ...]


class Publication:
    """Writes revisions into one repository."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._storage = repository.storage

    @classmethod
    def open(cls, uri: str, *, field: str = "--repository") -> Publication:
        """The repository at ``uri``, a directory (made if it is missing) or ``s3://``. Raises :class:`UserError`."""
        storage = open_storage(uri, field=field, create=True)
        if not storage.can_publish:
            raise UserError(
                "portfolios can be read from here, but not published to it.",
                field=field,
                value=uri,
                remedy="Publish to a directory or to s3://bucket/prefix.",
            )
        return cls(Repository(storage))

    @staticmethod
    def check(uri: str, *, field: str = "--repository") -> None:
        """Raise :class:`UserError` if nothing could be published at ``uri``.

        For long runs that publish at their end. A missing directory is made only then; in a store a scratch object is
        written and removed, to see that it has conditional writes and that these credentials may write.
        """
        root = local_root(uri, field=field)
        if root is None:
            Publication.open(uri, field=field)
            return
        nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(
                f"it cannot be written ({nearest} is no folder that you may write to).",
                field=field,
                value=uri,
                remedy="Choose a folder that you may write to.",
            )

    def publish(
        self,
        draft: Manifest,
        files: Mapping[str, Path],
        *,
        history_limit: int,
        in_use: Collection[int] = (),
        signing_key: SigningKey | None = None,
        on_step: Callable[[str], None] | None = None,
    ) -> Published:
        """Publish ``draft`` under a revision number of its own.

        ``files`` holds each variant's ONNX file by its name; a split's is its plan, with its shards beside it.
        The draft's own revision number has no meaning. The same content as the current revision's is not published
        twice (missing or damaged files of it are put back). Revisions older than the newest ``history_limit`` are
        removed, but never the current one or one ``in_use``. With a ``signing_key`` the manifest is signed.
        ``on_step`` is called after each step.

        Raises :class:`UserError` if a file is not the draft's or the repository cannot be written; whatever was current
        before is current then.
        """
        done = on_step if on_step is not None else _ignore
        _require_files(draft, files)
        content = renumbered(draft, 1).to_bytes()
        # Numbers of revisions and versions differ in length.
        if len(content) > MAXIMUM_MANIFEST_BYTES - _LONGEST_NUMBERS:
            raise UserError(
                f"the manifest would have {len(content)} bytes, and readers take {MAXIMUM_MANIFEST_BYTES}.",
                field="spec.selection.maxVariants",
                value=len(draft.variants),
                remedy="Publish fewer variants: each brings inputs to try it with, as large as the model's.",
            )
        content_sha256 = sha256_of(content)
        before = self._pointer_revision(draft.model)
        revision = self.reserve(draft.model, content_sha256=content_sha256)
        done("reserved")
        manifest = renumbered(draft, revision)
        raw = manifest.to_bytes()
        wrote = False
        for variant in manifest.variants:
            for file in files_of(manifest.model, variant, files[variant.name]):
                if digest_and_size(self._storage, file.path) != (file.sha256, file.size_bytes):
                    self._storage.write_file(file.path, file.local)
                    wrote = True
            done(f"variant {variant.name}")
        # The signature comes first: whoever finds the manifest finds it signed.
        documents = {layout.manifest_path(manifest.model, revision): raw}
        if signing_key is not None:
            signature = signing_key.sign(raw, comment=f"edgefolio model:{manifest.model} revision:{revision}")
            documents = {layout.signature_path(manifest.model, revision): signature, **documents}
        for path, content in documents.items():
            if self._storage.read(path, maximum_bytes=MAXIMUM_MANIFEST_BYTES) != content:
                self._storage.write(path, content)
                wrote = True
        done("manifest")
        own = CurrentPointer(model=manifest.model, revision=revision, manifest_sha256=sha256_of(raw))
        pointer = self._advance(own)
        done("pointer")
        removed = remove_old_revisions(
            self.repository, manifest.model, history_limit=history_limit, in_use={*in_use, pointer.revision}
        )
        done("history")
        return Published(
            pointer=own,
            manifest=manifest,
            is_current=pointer == own,
            already_published=before == revision and not wrote,
            removed_revisions=removed,
        )

    def reserve(self, model: str, *, content_sha256: str) -> int:
        """A revision number for this content: the one reserved for it before, or the next free one.

        An earlier reservation counts only if nothing newer is current: the pointer never moves back.
        """
        names = self._storage.names(layout.revisions_folder(model))
        reserved = sorted(
            number for name in names if (number := layout.number_of(name, layout.RESERVED_SUFFIX)) is not None
        )
        current = self._pointer_revision(model)
        for number in reversed(reserved[-_RESERVATIONS_SEARCHED:]):
            if number < current:
                break
            if self._content_of(model, number) == content_sha256:
                return number
        published = [layout.number_of(name, layout.MANIFEST_SUFFIX) or 0 for name in names]
        versions = [layout.number_of(name) or 0 for name in self._storage.names(layout.versions_folder(model))]
        first_free = 1 + max(
            [current, *reserved, *published, *(version // VERSIONS_PER_REVISION for version in versions)]
        )
        for revision in range(first_free, first_free + _ATTEMPTS_TO_RESERVE):
            reservation = Reservation(model=model, revision=revision, content_sha256=content_sha256)
            raw = (reservation.model_dump_json(by_alias=True) + "\n").encode()
            if self._storage.create(layout.reservation_path(model, revision), raw):
                return revision
            if self._content_of(model, revision) == content_sha256:
                return revision  # another process publishes the very same content
        raise UserError(
            "no revision number could be reserved.",
            field=self._storage.field,
            value=self._storage.uri,
            remedy="Publish one portfolio of this model at a time.",
        )

    def _content_of(self, model: str, revision: int) -> str | None:
        """The content a number was reserved for; ``None`` for a reservation that is broken (its number stays spent)."""
        raw = self._storage.read(layout.reservation_path(model, revision), maximum_bytes=MAXIMUM_POINTER_BYTES)
        try:
            reservation = Reservation.model_validate_json(raw or b"")
        except ValidationError:
            return None
        return reservation.content_sha256 if (reservation.model, reservation.revision) == (model, revision) else None

    def _pointer_revision(self, model: str) -> int:
        try:
            pointer = self.repository.current(model)
        except IntegrityError:
            return 0  # a broken pointer is replaced by the next publication
        return 0 if pointer is None else pointer.revision

    def _advance(self, own: CurrentPointer) -> CurrentPointer:
        """Move the pointer forward to ``own``; returns the pointer now in place."""
        path = layout.pointer_path(own.model)
        raw = (own.model_dump_json(by_alias=True) + "\n").encode()

        def forward(found: bytes | None) -> bytes | None:
            if found is not None:
                try:
                    if parse_pointer(found, location=path).revision > own.revision:
                        return None
                except IntegrityError:
                    pass
            return raw

        after = self._storage.update(path, forward)
        assert after is not None
        return parse_pointer(after, location=self.repository.location(path))


def renumbered(manifest: Manifest, revision: int) -> Manifest:
    """The same manifest as another revision; everything that depends on the number follows."""
    document = manifest.model_dump(mode="python")
    document["revision"] = revision
    for variant in document["variants"]:
        name = variant["file"].rpartition("/")[2]
        variant["file"] = f"{revision * VERSIONS_PER_REVISION + variant['rank']}/{name}"
    return Manifest.model_validate(document)


def _require_files(draft: Manifest, files: Mapping[str, Path]) -> None:
    for variant in draft.variants:
        path = files.get(variant.name)
        _require_file(path, variant, sha256=variant.sha256, size_bytes=variant.size_bytes)
        assert path is not None
        try:
            shards = files_of(draft.model, variant, path)[:-1]
        except IntegrityError as error:
            raise UserError(
                f"variant {variant.name!r}: {error.problem}", field="files", value=path, remedy="Make it again."
            ) from error
        for file in shards:
            _require_file(file.local, variant, sha256=file.sha256, size_bytes=file.size_bytes)


def _require_file(path: Path | None, variant: Variant, *, sha256: str, size_bytes: int) -> None:
    if path is None or not path.is_file():
        raise UserError(
            f"the file of variant {variant.name!r} is missing.", field="files", value=path, remedy="Make it again."
        )
    if path.stat().st_size != size_bytes or digest_of_file(path) != sha256:
        raise UserError(
            f"the file of variant {variant.name!r} is not the one in the manifest.",
            field="files",
            value=path,
            remedy="Make it again.",
        )


def _ignore(step: str) -> None:
    del step
