"""Storage in an object store: S3-compatible; other fsspec file systems are read-only.

The endpoint comes from ``AWS_ENDPOINT_URL`` or fsspec's own configuration. Exclusive creation is ``If-None-Match: *``
and the pointer is replaced with ``If-Match``: both are part of S3 since 2024 and of MinIO.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from edgefolio.errors import EdgefolioError, IntegrityError, UserError
from edgefolio.transient_errors import unreachable

_S3 = frozenset({"s3", "s3a"})
_ATTEMPTS_TO_UPDATE = 50
_READ_AHEAD_BYTES = 4 << 20
#: A silent store must fail soon, not after botocore's default of a minute per attempt.
_S3_CONFIGURATION = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3, "mode": "standard"}}


class ObjectStorage:
    """See :class:`edgefolio.repository.storage.Storage`."""

    def __init__(self, file_system: Any, root: str, *, uri: str, field: str, can_publish: bool) -> None:
        self._file_system = file_system
        self._root = root.rstrip("/")
        self.uri = uri
        self.field = field
        self.can_publish = can_publish

    @classmethod
    def open(cls, uri: str, *, field: str) -> ObjectStorage:
        """The store behind ``uri``. Raises :class:`UserError` for an unknown scheme or a bucket that cannot be read."""
        scheme = uri.partition("://")[0]
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if scheme in _S3:
            options["config_kwargs"] = _S3_CONFIGURATION
        try:
            file_system, root = fsspec.core.url_to_fs(uri, **options)
        except ValueError as error:
            raise UserError(
                "the scheme of this URI is not known.",
                field=field,
                value=uri,
                remedy="Name a directory or s3://bucket/prefix.",
            ) from error
        except ImportError as error:
            raise UserError(
                f"this URI needs a package that is not installed ({error}).",
                field=field,
                value=uri,
                remedy="Run: pip install 'edgefolio[s3]' (for s3://), or use a directory.",
            ) from error
        storage = cls(file_system, str(root), uri=uri, field=field, can_publish=scheme in _S3)
        if scheme in _S3:
            storage._require_bucket()
        return storage

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        """All bytes at ``path``, at most ``maximum_bytes + 1``; ``None`` if it is missing."""
        try:
            with self.open_at(path) as stream, self.translated_errors(path):
                return stream.read(maximum_bytes + 1)
        except FileNotFoundError:
            return None

    def open_at(self, path: str, *, offset: int = 0, read_ahead_bytes: int | None = None) -> BinaryIO:
        """A stream from ``offset`` on. Raises ``FileNotFoundError``."""
        with self.translated_errors(path):
            stream = self._file_system.open(self._full(path), "rb", block_size=read_ahead_bytes or _READ_AHEAD_BYTES)
            if offset:
                stream.seek(offset)
            return cast(BinaryIO, stream)

    def names(self, folder: str) -> tuple[str, ...]:
        """Sorted names below ``folder``."""
        full = self._full(folder)
        try:
            with self.translated_errors():
                found = self._file_system.ls(full, detail=False)
        except FileNotFoundError:
            return ()
        names = {str(entry).rstrip("/").rpartition("/")[2] for entry in found if str(entry).rstrip("/") != full}
        return tuple(sorted(names))

    def create(self, path: str, content: bytes) -> bool:
        """Write ``path`` only if nothing is there."""
        self._require_publishing()
        try:
            with self.translated_errors():
                self._file_system.pipe_file(self._full(path), content, mode="create")
        except FileExistsError:
            return False
        return True

    def write(self, path: str, content: bytes) -> None:
        """Write ``path``, replacing what was there."""
        self._require_publishing()
        with self.translated_errors():
            self._file_system.pipe_file(self._full(path), content)

    def write_file(self, path: str, source: Path) -> None:
        """Upload ``source``; readers see nothing of a killed upload."""
        self._require_publishing()
        with self.translated_errors():
            self._file_system.put_file(str(source), self._full(path))

    def update(self, path: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Replace the content if it is unchanged since it was read; else retry."""
        self._require_publishing()
        full = self._full(path)
        for _ in range(_ATTEMPTS_TO_UPDATE):
            tag, before = self._tag_and_content(full)
            after = change(before)
            if after is None or after == before:
                return before
            try:
                with self.translated_errors():
                    if tag is None:
                        self._file_system.pipe_file(full, after, mode="create")
                    else:
                        self._file_system.pipe_file(full, after, IfMatch=tag)
                return after
            except (FileExistsError, _ChangedMeanwhileError):
                continue
        raise UserError(
            "others change the pointer all the time.",
            field=self.field,
            value=f"{self.uri}: {path}",
            remedy="Publish one portfolio of this model at a time.",
        )

    def delete(self, path: str) -> None:
        """Remove ``path``; no error if it is absent."""
        self._require_publishing()
        try:
            with self.translated_errors():
                self._file_system.rm_file(self._full(path))
        except FileNotFoundError:
            return

    def _tag_and_content(self, full: str) -> tuple[str | None, bytes | None]:
        # A change between the two requests is harmless: the ETag is then stale, and the conditional write fails.
        try:
            with self.translated_errors():
                tag = str(self._file_system.info(full)["ETag"])
                return tag, bytes(self._file_system.cat_file(full))
        except FileNotFoundError:
            return None, None

    def _require_bucket(self) -> None:
        bucket, _, prefix = self._root.partition("/")
        try:
            with self.translated_errors():
                self._file_system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except FileNotFoundError as error:
            raise UserError(
                f"there is no bucket {bucket!r}.",
                field=self.field,
                value=self.uri,
                remedy="Create the bucket, or correct its name.",
            ) from error

    def _require_publishing(self) -> None:
        if not self.can_publish:
            raise UserError(
                "portfolios can be read from here, but not published to it.",
                field=self.field,
                value=self.uri,
                remedy="Publish to a directory or to s3://bucket/prefix.",
            )

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextlib.contextmanager
    def translated_errors(self, path: str = "") -> Iterator[None]:
        """Turn every store failure into one :class:`UserError`, except for a missing or existing object."""
        try:
            yield
        except (EdgefolioError, FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # every driver of fsspec raises its own kinds
            if "pre-conditions" in str(error) or "PreconditionFailed" in str(error) or "Conditional" in str(error):
                raise _ChangedMeanwhileError from error
            if any(kind.__name__.endswith("ChecksumError") for kind in type(error).__mro__):
                # S3 keeps a checksum with each object, and its client compares it before we could.
                raise IntegrityError(
                    "the store itself says that these are not the bytes that were written.",
                    location=f"{self.uri}/{path}",
                ) from error
            raise unreachable(
                error,
                f"the store cannot be reached ({type(error).__name__}: {' '.join(str(error).split())[:200]}).",
                field=self.field,
                value=self.uri,
                remedy="Check the address (AWS_ENDPOINT_URL), the credentials and the permissions.",
            ) from error


class _ChangedMeanwhileError(Exception):
    """A conditional write lost against another one."""
