"""Download of one file from a repository: resumable, throttled, and verified before it gets its name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from edgefolio.errors import EdgefolioError, IntegrityError
from edgefolio.files import PARTIAL_SUFFIX, fsync_folder, make_folder, writing
from edgefolio.repository.storage import Storage

_CHUNK_BYTES = 1 << 20
_LEAST_AHEAD_BYTES = 64 << 10


class TransferStopped(EdgefolioError):  # noqa: N818 - cancelled on request, not an error
    """A download was cancelled; the next one resumes it."""


def digest_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a local file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_and_size(storage: Storage, path: str) -> tuple[str, int] | None:
    """sha256 and size of an object as it lies in the repository; ``None`` if it is missing."""
    digest, size = hashlib.sha256(), 0
    try:
        with storage.open_at(path) as stream, storage.translated_errors(path):
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
    location = f"{storage.uri.rstrip('/')}/{path}"
    make_folder(destination.parent, field="--cache")
    # The name carries the digest: other bytes are never resumed.
    partial = destination.with_name(f".{destination.name}.{sha256[:16]}{PARTIAL_SUFFIX}")
    with writing(partial, field="--cache"), _locked(partial) as stream:
        if destination.is_file() and digest_of_file(destination) == sha256:
            partial.unlink()
            return destination  # another process finished while this one waited for the lock
        resumed = stream.tell() > 0

        def fill() -> str | None:
            return _fill(
                storage, path, stream, sha256, size_bytes, maximum_bytes_per_second, location, may_go_on=may_go_on
            )

        try:
            problem = fill()
            if problem is not None and resumed:
                # The earlier partial file may be at fault, not the repository.
                stream.truncate(0)
                problem = fill()
            if problem is not None:
                raise IntegrityError(problem, location=location)
        except IntegrityError:
            partial.unlink(missing_ok=True)
            raise
        stream.flush()
        os.fsync(stream.fileno())
        partial.replace(destination)
        fsync_folder(destination.parent)
    return destination


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[BinaryIO]:
    """``partial``, open for reading and appending under an exclusive lock."""
    while True:
        with partial.open("a+b") as stream:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
            try:
                same = partial.stat().st_ino == os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                same = False
            if same:
                yield stream
                return
            # It was renamed or removed while this process waited: the open file is no longer the partial file.


def _fill(
    storage: Storage,
    path: str,
    stream: BinaryIO,
    sha256: str,
    size_bytes: int,
    maximum_bytes_per_second: int | None,
    location: str,
    *,
    may_go_on: Callable[[], bool],
) -> str | None:
    """Append the missing bytes. Returns what is wrong with the file, ``None`` if nothing is."""
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    size = stream.tell()
    chunk_bytes = (
        _CHUNK_BYTES if maximum_bytes_per_second is None else max(1, min(_CHUNK_BYTES, maximum_bytes_per_second))
    )
    try:
        # Read-ahead counts too: a slow link must not be saturated for seconds.
        ahead = None if maximum_bytes_per_second is None else max(_LEAST_AHEAD_BYTES, chunk_bytes)
        source = storage.open_at(path, offset=min(size, size_bytes), read_ahead_bytes=ahead)
    except FileNotFoundError as error:
        raise IntegrityError("the file is missing.", location=location) from error
    started, transferred = time.monotonic(), 0
    with source, storage.translated_errors(path):
        # One byte more than expected is read, so that a longer file is noticed, and never more than that.
        while size <= size_bytes and (chunk := source.read(min(chunk_bytes, size_bytes + 1 - size))):
            stream.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            transferred += len(chunk)
            if not may_go_on():
                raise TransferStopped(location)
            if maximum_bytes_per_second is not None:
                early = transferred / maximum_bytes_per_second - (time.monotonic() - started)
                time.sleep(max(0.0, early))
    if size > size_bytes:
        return f"the file is longer than the {size_bytes} bytes in the manifest."
    if size < size_bytes:
        return f"the file has {size} bytes, the manifest says {size_bytes}."
    if digest.hexdigest() != sha256:
        return f"the file's digest is {digest.hexdigest()}, the manifest says {sha256}."
    return None
