"""Storage protocol of a repository, and the storage that a URI names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from edgefolio.errors import UserError


class Storage(Protocol):
    """A tree of small and large objects. Paths are relative, with forward slashes, made by :mod:`.layout`.

    Every write is whole or absent. Methods raise :class:`UserError` (for ``field``) if the place cannot be reached,
    read or written; a missing object is ``None``, an empty tuple or ``FileNotFoundError``, as stated.
    """

    uri: str
    field: str
    #: Whether exclusive creation and conditional update are atomic here; publishing needs both.
    can_publish: bool

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        """All bytes at ``path``, at most ``maximum_bytes + 1`` of them; ``None`` if there is no such object."""

    def open_at(self, path: str, *, offset: int = 0, read_ahead_bytes: int | None = None) -> BinaryIO:
        """A stream from ``offset`` on, with that much read-ahead. Raises FileNotFoundError."""

    def translated_errors(self, path: str = "") -> AbstractContextManager[None]:
        """Context for reads of the stream at ``path``: every failure of the place becomes a :class:`UserError`.

        Bytes that the place itself reports as damaged are an :class:`IntegrityError`.
        """

    def names(self, folder: str) -> tuple[str, ...]:
        """Sorted names of the entries of ``folder``; empty if there is none."""

    def create(self, path: str, content: bytes) -> bool:
        """Write ``path`` only if nothing is there; ``False`` if something is."""

    def write(self, path: str, content: bytes) -> None:
        """Write ``path``, replacing what was there."""

    def write_file(self, path: str, source: Path) -> None:
        """Write the file ``source`` to ``path``, replacing what was there."""

    def update(self, path: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Atomically replace the content by ``change(content)``; ``None`` leaves it.

        Returns what is there afterwards. ``change`` may be called several times and must not have effects.
        """

    def delete(self, path: str) -> None:
        """Remove ``path``, and its folder where that is empty now; no error if it is absent."""


def open_storage(uri: str, *, field: str, create: bool = False) -> Storage:
    """The storage at ``uri``: a path, ``file://``, ``s3://bucket/prefix``, or read-only any URI that fsspec opens.

    ``create`` makes a missing directory. Raises :class:`UserError` for an unknown scheme or an unreadable place.
    """
    root = local_root(uri, field=field)
    if root is None:
        from edgefolio.repository.object_storage import ObjectStorage

        return ObjectStorage.open(uri, field=field)
    from edgefolio.repository.local_storage import LocalStorage

    return LocalStorage.open(root, uri=uri, field=field, create=create)


def local_root(uri: str, *, field: str) -> Path | None:
    """The directory that ``uri`` names; ``None`` if it names another place. Raises :class:`UserError` for nonsense."""
    scheme, separator, rest = uri.partition("://")
    if not uri:
        raise UserError("it is empty.", field=field, value=uri, remedy="Name a directory or s3://bucket/prefix.")
    if separator and scheme != "file":
        return None
    if not separator and ":" in uri.partition("/")[0]:
        raise UserError(
            "the scheme of this URI is not known.",
            field=field,
            value=uri,
            remedy="Name a directory or s3://bucket/prefix (a directory with a colon in its name: write ./name).",
        )
    return Path(rest if separator else uri).expanduser()
