"""Atomic, durable file writes: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgefolio.errors import DiskFullError, UserError

#: Suffix of unfinished files, which readers ignore.
PARTIAL_SUFFIX = ".partial"

#: Errors of a disk, quota or limit that is used up.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def write_durably(path: Path, content: bytes, *, field: str = "path") -> None:
    """Write ``content`` to ``path`` atomically, replacing a file there. Raises :class:`UserError` on failure."""
    with _new_file(path, field=field) as (stream, temporary):
        stream.write(content)
        _finish(stream)
        temporary.replace(path)
        fsync_folder(path.parent)


def copy_durably(source: Path, path: Path, *, field: str = "path") -> None:
    """Copy the file ``source`` to ``path`` atomically, replacing a file there."""
    with source.open("rb") as content, _new_file(path, field=field) as (stream, temporary):
        shutil.copyfileobj(content, stream, 1 << 20)
        _finish(stream)
        temporary.replace(path)
        fsync_folder(path.parent)


def create_durably(path: Path, content: bytes, *, field: str = "path") -> bool:
    """Create ``path`` with ``content`` exclusively. ``False`` if it exists already; never half a file."""
    with _new_file(path, field=field) as (stream, temporary):
        stream.write(content)
        _finish(stream)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # A file system without hard links (FAT, some network shares): still exclusive, but a crash between these
            # two lines leaves an empty file, which readers take for a spent name.
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                return False
            os.close(descriptor)
            temporary.replace(path)
        fsync_folder(path.parent)
    return True


def make_folder(path: Path, *, field: str = "path") -> None:
    """Create the folder ``path`` and its parents durably. Raises :class:`UserError`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with writing(path, field=field):
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse to fsync a folder; the rename has still happened.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path, *, field: str) -> Iterator[None]:
    """Turn the operating system's refusals to write at ``path`` into one :class:`UserError` for ``field``."""
    try:
        yield
    except OSError as error:
        raise unwritable(error, path=path, field=field) from error


def unwritable(error: OSError, *, path: Path, field: str) -> UserError:
    """The error a user sees when ``path`` could not be written."""
    if error.errno in FULL:
        return DiskFullError(
            f"there is no space left to write it ({error.strerror}).",
            field=field,
            value=path,
            remedy="Free space there, or choose another place; nothing half written is left.",
        )
    return UserError(
        f"it cannot be written ({error.strerror or error}).",
        field=field,
        value=path,
        remedy="Choose a folder that you may write to.",
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error``, or what it was raised from, is a full disk of this machine."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextlib.contextmanager
def _new_file(path: Path, *, field: str) -> Iterator[tuple[BinaryIO, Path]]:
    make_folder(path.parent, field=field)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    with writing(path, field=field):
        try:
            with temporary.open("xb") as stream:
                yield stream, temporary
        finally:
            temporary.unlink(missing_ok=True)


def _finish(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
