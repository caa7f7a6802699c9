"""Download of one file from a repository: resumable, throttled, and verified before it gets its name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from edgefolio.errors import DiskFullError, IntegrityError, TransientError
from edgefolio.files import FULL, PARTIAL_SUFFIX, fsync_folder, make_folder, writing
from edgefolio.repository.remote.calls import interruptible, pause, require_going_on
from edgefolio.repository.storage import Storage

_CHUNK_BYTES = 1 << 20
#: Field of errors of the local disk.
_FIELD = "local disk"
#: Left free beside a file that is fetched: for state, logs and manifests.
_SPARE_BYTES = 64 << 10
#: After a broken connection that brought something, the rest is asked for at once.
_SECONDS_BETWEEN_ATTEMPTS = 0.5
_ATTEMPTS = 5


def digest_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a local file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_and_size(storage: Storage, path: str) -> tuple[str, int] | None:
    """sha256 and size of an object as it lies in the repository; ``None`` if it is missing."""
    digest, size = hashlib.sha256(), 0
    try:
        with storage.open_at(path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return None
    return digest.hexdigest(), size


def fetch_verified(
    storage: Storage,
    path: str,
    destination: Path,
    *,
    sha256: str,
    size_bytes: int,
    maximum_bytes_per_second: int | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Path:
    """See :meth:`edgefolio.repository.Repository.fetch`."""
    if destination.is_file() and destination.stat().st_size == size_bytes and digest_of_file(destination) == sha256:
        return destination
    wanted = _Wanted(
        path=path,
        sha256=sha256,
        size_bytes=size_bytes,
        bytes_per_second=maximum_bytes_per_second,
        location=f"{storage.uri.rstrip('/')}/{path}",
    )
    make_folder(destination.parent, field=_FIELD)
    # The name carries the digest: other bytes are never resumed.
    partial = destination.with_name(f".{destination.name}.{sha256[:16]}{PARTIAL_SUFFIX}")
    with interruptible(may_go_on), writing(partial, field=_FIELD), _locked(partial) as stream:
        if destination.is_file() and digest_of_file(destination) == sha256:
            partial.unlink()
            return destination  # another process finished while this one waited for the lock
        try:
            problem = _complete(storage, stream, wanted)
            if problem is not None:
                raise IntegrityError(problem, location=wanted.location)
            _flush(stream, wanted)
        except (IntegrityError, DiskFullError):
            # What fills a disk must not stay there; the rest of a broken transfer is resumed.
            partial.unlink(missing_ok=True)
            raise
        partial.replace(destination)
        fsync_folder(destination.parent)
    return destination


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What is fetched, and how fast."""

    path: str
    sha256: str
    size_bytes: int
    bytes_per_second: int | None
    location: str

    @property
    def chunk_bytes(self) -> int:
        return _CHUNK_BYTES if self.bytes_per_second is None else max(1, min(_CHUNK_BYTES, self.bytes_per_second))


def require_room(path: Path, size: int) -> None:
    """Raise :class:`DiskFullError` if the disk of ``path`` has no room for ``size`` bytes more."""
    free = shutil.disk_usage(path.parent).free
    if size > 0 and free < size + _SPARE_BYTES:
        raise _full(path, size, free) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full(path: Path, size: int, free: int) -> DiskFullError:
    return DiskFullError(
        f"there is no space left: {size} bytes are needed, {free} are free.",
        field=_FIELD,
        value=path,
        remedy="Free space on this disk; the partial file was removed.",
    )


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[FileIO]:
    """``partial``, open for reading and appending under an exclusive lock."""
    while True:
        # Unbuffered: what a full disk refused would be written once more by close().
        with partial.open("a+b", buffering=0) as stream:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
            try:
                same = partial.stat().st_ino == os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                same = False
            if same:
                yield stream
                return
            # It was renamed or removed while this process waited: the open file is no longer the partial file.


def _complete(storage: Storage, stream: FileIO, wanted: _Wanted) -> str | None:
    """Append the missing bytes. Returns what is wrong with the file, ``None`` if nothing is."""
    broken = 0
    while True:
        size = stream.seek(0, os.SEEK_END)
        resumed = size > 0
        try:
            problem = _fill(storage, stream, wanted)
        except DiskFullError:
            raise
        except TransientError:
            broken += 1
            if broken >= _ATTEMPTS or stream.seek(0, os.SEEK_END) <= size:
                raise
            pause(_SECONDS_BETWEEN_ATTEMPTS)
            continue
        if problem is None or not resumed:
            return problem
        # The earlier part may be at fault, or what lies there may have changed in between.
        stream.truncate(0)


def _fill(storage: Storage, stream: FileIO, wanted: _Wanted) -> str | None:
    """Read the rest once; see :func:`_complete`."""
    digest, size = _digest_so_far(stream)
    if size >= wanted.size_bytes:
        if size == wanted.size_bytes and digest.hexdigest() == wanted.sha256:
            return None  # only its name was missing
        stream.truncate(0)
        digest, size = hashlib.sha256(), 0
    require_room(Path(stream.name), wanted.size_bytes - size)
    try:
        source = storage.open_at(wanted.path, offset=size)
    except FileNotFoundError as error:
        raise IntegrityError("the file is missing.", location=wanted.location) from error
    started, transferred = time.monotonic(), 0
    with source:
        if source.starts_at != size:
            stream.truncate(0)
            digest, size = hashlib.sha256(), 0
        # One byte more than expected is read, so that a longer file is noticed, and never more than that.
        while size <= wanted.size_bytes:
            chunk = source.read(min(wanted.chunk_bytes, wanted.size_bytes + 1 - size))
            if not chunk:
                break
            _write(stream, chunk, wanted)
            digest.update(chunk)
            size += len(chunk)
            transferred += len(chunk)
            require_going_on()
            if wanted.bytes_per_second is not None:
                pause(transferred / wanted.bytes_per_second - (time.monotonic() - started))
    if size > wanted.size_bytes:
        return f"the file is longer than the {wanted.size_bytes} bytes in the manifest."
    if size < wanted.size_bytes:
        return f"the file has {size} bytes, the manifest says {wanted.size_bytes}."
    if digest.hexdigest() != wanted.sha256:
        return f"the file's digest is {digest.hexdigest()}, the manifest says {wanted.sha256}."
    return None


def _digest_so_far(stream: FileIO) -> tuple[hashlib._Hash, int]:
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest, stream.tell()


def _write(stream: FileIO, chunk: bytes, wanted: _Wanted) -> None:
    with _disk_full(stream, wanted):
        rest = memoryview(chunk)
        while rest:
            rest = rest[stream.write(rest) :]


def _flush(stream: FileIO, wanted: _Wanted) -> None:
    with _disk_full(stream, wanted):
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _disk_full(stream: FileIO, wanted: _Wanted) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        path = Path(stream.name)
        missing = max(0, wanted.size_bytes - os.fstat(stream.fileno()).st_size)
        raise _full(path, missing, shutil.disk_usage(path.parent).free) from error
