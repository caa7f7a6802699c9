"""Storage protocol of a repository, and the storage that a URI names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgefolio.errors import UserError
from edgefolio.uris import problem_in_uri, secret_in_uri


class Stream(Protocol):
    """Forward-only stream of one object's bytes. Reading raises :class:`UserError` if the place fails."""

    #: Offset of the first byte: the one that was asked for, or 0 where the store knows no ranges.
    starts_at: int

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, at least one but at the end."""

    def close(self) -> None:
        """Give up the rest."""

    def __enter__(self) -> Stream: ...

    def __exit__(self, *_: object) -> None: ...


class Storage(Protocol):
    """A tree of small and large objects. Paths are relative, with forward slashes, made by :mod:`.layout`.

    Every write is whole or absent. Methods raise :class:`UserError` (for ``field``) if the place cannot be reached,
    read or written, :class:`~edgefolio.errors.TransientError` of these where that may pass; a missing object is
    ``None``, an empty tuple or ``FileNotFoundError``, as stated. Those that wait for a network end at once inside
    :func:`edgefolio.repository.remote.calls.interruptible`.
    """

    uri: str
    field: str
    #: Whether exclusive creation and conditional update are atomic here; publishing needs both.
    can_publish: bool

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        """All bytes at ``path``, at most ``maximum_bytes + 1`` of them; ``None`` if there is no such object."""

    def open_at(self, path: str, *, offset: int = 0) -> Stream:
        """A stream from ``offset`` on. Raises FileNotFoundError."""

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
    """The storage at ``uri``: a path, ``file://``, ``s3://bucket/prefix``, or read-only ``https://host/path``.

    ``create`` makes a missing directory, and makes sure that a store can be published to. Raises :class:`UserError`
    for an unknown scheme or an unreadable place.
    """
    root = local_root(uri, field=field)
    if root is not None:
        from edgefolio.repository.local_storage import LocalStorage

        return LocalStorage.open(root, uri=uri, field=field, create=create)
    scheme = uri.partition("://")[0].lower()
    if scheme in ("s3", "s3a"):
        from edgefolio.repository.remote.s3_storage import S3Storage

        return S3Storage.open(uri, field=field, write=create)
    if scheme in ("http", "https"):
        try:
            from edgefolio.repository.remote.http_storage import HttpStorage
        except ImportError as error:
            raise UserError(
                f"this URI needs a package that is not installed ({error}).",
                field=field,
                value=uri,
                remedy="Run: pip install 'edgefolio[s3]', or use a directory.",
            ) from error
        return HttpStorage(uri, field=field)
    raise _unknown_scheme(uri, field=field)


def local_root(uri: str, *, field: str) -> Path | None:
    """The directory that ``uri`` names; ``None`` if it names another place. Raises :class:`UserError` for nonsense."""
    if not uri:
        raise UserError("it is empty.", field=field, value=uri, remedy="Name a directory or s3://bucket/prefix.")
    problem = problem_in_uri(uri)
    if problem is not None:
        raise UserError(f"{problem.problem}.", field=field, value=uri, remedy=problem.remedy)
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        return None
    if not separator and ":" in uri.partition("/")[0]:
        raise _unknown_scheme(uri, field=field)
    return Path(rest.removeprefix("localhost") if separator else uri).expanduser()


def checked_argument(uri: str, *, field: str) -> str:
    """``uri`` of a command line if it holds no credentials, which history and process list would show.

    Raises :class:`UserError`.
    """
    problem = secret_in_uri(uri)
    if problem is not None:
        raise UserError(f"{problem.problem}.", field=field, value=uri, remedy=problem.remedy)
    return uri


def _unknown_scheme(uri: str, *, field: str) -> UserError:
    return UserError(
        "the scheme of this URI is not known.",
        field=field,
        value=uri,
        remedy="Name a directory, s3://bucket/prefix or https://host/path (a directory with a colon: ./name).",
    )
