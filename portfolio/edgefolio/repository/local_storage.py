"""Storage in a directory of this machine or a mounted volume."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from edgefolio.errors import IntegrityError, TransientError, UserError
from edgefolio.files import (
    PARTIAL_SUFFIX,
    copy_durably,
    create_durably,
    make_folder,
    unwritable,
    write_durably,
    writing,
)

_LOCK = ".lock"
#: What a network share, or a disk that is coming back, answers for a while.
_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EAGAIN})
#: An unfinished file that is older than this (seconds) belongs to a dead writer.
_DEAD_AFTER_SECONDS = 24 * 3600.0


class LocalStream:
    """An open file of the repository; see :class:`edgefolio.repository.storage.Stream`."""

    def __init__(self, stream: BinaryIO, *, starts_at: int, unreadable: Callable[[OSError], UserError]) -> None:
        self.starts_at = starts_at
        self._stream, self._unreadable = stream, unreadable

    def __enter__(self) -> LocalStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        try:
            return self._stream.read(size)
        except OSError as error:
            raise self._unreadable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class LocalStorage:
    """See :class:`edgefolio.repository.storage.Storage`."""

    can_publish = True

    def __init__(self, root: Path, *, uri: str, field: str) -> None:
        self.root = root
        self.uri = uri
        self.field = field

    @classmethod
    def open(cls, root: Path, *, uri: str, field: str, create: bool) -> LocalStorage:
        """The directory ``root``; made if it is missing and ``create`` is set. Raises :class:`UserError`."""
        if create:
            make_folder(root, field=field)
        try:
            # Listing it is the only proof that it is a directory that may be read.
            with os.scandir(root) as entries:
                next(entries, None)
        except OSError as error:
            raise UserError(
                f"the repository cannot be read ({error.strerror}).",
                field=field,
                value=uri,
                remedy="Name the directory that `edgefolio make` published to.",
            ) from error
        return cls(root.resolve(), uri=uri, field=field)

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        """All bytes at ``path``, at most ``maximum_bytes + 1``; ``None`` if it is missing."""
        try:
            with self.open_at(path) as stream:
                return stream.read(maximum_bytes + 1)
        except FileNotFoundError:
            return None

    def open_at(self, path: str, *, offset: int = 0) -> LocalStream:
        """A stream from ``offset`` on. Raises ``FileNotFoundError``."""
        try:
            # A named pipe would wait for its writer for ever.
            descriptor = os.open(self._inside(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            stream = os.fdopen(descriptor, "rb")
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                stream.close()
                raise OSError(errno.EINVAL, "it is not a regular file")
            stream.seek(offset)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(path, error) from error
        return LocalStream(stream, starts_at=offset, unreadable=lambda error: self._unreadable(path, error))

    def names(self, folder: str) -> tuple[str, ...]:
        """Sorted names in ``folder`` without hidden and unfinished ones."""
        try:
            entries = [entry.name for entry in self._inside(folder).iterdir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unreadable(folder, error) from error
        return tuple(sorted(entry for entry in entries if not entry.startswith(".")))

    def create(self, path: str, content: bytes) -> bool:
        """Write ``path`` only if nothing is there."""
        return create_durably(self._inside(path), content, field=self.field)

    def write(self, path: str, content: bytes) -> None:
        """Write ``path``, replacing what was there."""
        write_durably(self._inside(path), content, field=self.field)

    def write_file(self, path: str, source: Path) -> None:
        """Copy ``source`` to ``path``."""
        target = self._inside(path)
        self._remove_dead_partials(target.parent)
        copy_durably(source, target, field=self.field)

    def update(self, path: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Replace the content under a lock of the folder (other processes of this machine and NFS clients wait)."""
        target = self._inside(path)
        with self._locked(target.parent):
            before = target.read_bytes() if target.exists() else None
            after = change(before)
            if after is None or after == before:
                return before
            write_durably(target, after, field=self.field)
            return after

    def delete(self, path: str) -> None:
        """Remove ``path`` and its folder where that is empty now."""
        target = self._inside(path)
        with writing(target, field=self.field):
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                self._remove_dead_partials(target.parent)
                with contextlib.suppress(OSError):
                    target.parent.rmdir()

    def _inside(self, path: str) -> Path:
        resolved = (self.root / path).resolve()
        if not resolved.is_relative_to(self.root):
            raise IntegrityError(
                f"the path leaves the repository (it leads to {resolved}).",
                location=f"{self.uri.rstrip('/')}/{path}",
                remedy="Remove the link; a repository holds plain files only.",
            )
        return resolved

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        make_folder(folder, field=self.field)
        with writing(folder / _LOCK, field=self.field):
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise unwritable(error, path=folder, field=self.field) from error
        finally:
            os.close(descriptor)

    def _remove_dead_partials(self, folder: Path) -> None:
        """Remove partial files of long-dead writers."""
        horizon = time.time() - _DEAD_AFTER_SECONDS
        for partial in folder.glob(f".*{PARTIAL_SUFFIX}") if folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if partial.stat().st_mtime < horizon:
                    partial.unlink()

    def _unreadable(self, path: str, error: OSError) -> UserError:
        kind = TransientError if error.errno in _PASSING else UserError
        return kind(
            f"the repository cannot be read at {path} ({error.strerror}).",
            field=self.field,
            value=self.uri,
            remedy="Check the permissions and that nothing else was put in its place.",
        )
