"""Storage in an S3-compatible object store.

The endpoint comes from ``AWS_ENDPOINT_URL`` or fsspec's own configuration. Exclusive creation is ``If-None-Match: *``
and the pointer is replaced with ``If-Match``: both are part of S3 since 2024. Reading asks for objects by their key
alone, so it needs no right to list.
"""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec

from edgefolio.errors import EdgefolioError, TransientError, UserError
from edgefolio.repository.remote.calls import (
    CONNECT_SECONDS,
    SILENT_SECONDS,
    RemoteStream,
    pause,
    read_up_to,
    wait_for,
)
from edgefolio.repository.remote.s3_answers import (
    BusyError,
    ChangedError,
    UnsupportedError,
    raise_for_condition,
    raise_translated,
    status_and_code,
)

_ATTEMPTS_TO_UPDATE = 50
#: A client that starts on a busy board: it looks for credentials, and botocore reads its large tables.
_CLIENT_SECONDS = 60.0
#: A write is answered when all of it is stored: it may take this long, and its size at this speed.
_WRITE_SECONDS = 60.0
_LEAST_UPLOAD_BYTES_PER_SECOND = 16 << 10
_CONFIGURATION = {
    "connect_timeout": CONNECT_SECONDS,
    "read_timeout": _WRITE_SECONDS,
    "retries": {"max_attempts": 3, "mode": "standard"},
}
#: Of all names in one folder, together: several hundred thousand of them.
_LARGEST_LISTING_LETTERS = 32 << 20
#: Places that are known in this process to honour conditions.
_KEEPS_CONDITIONS: set[tuple[str, str]] = set()


class S3Storage:
    """See :class:`edgefolio.repository.storage.Storage`."""

    can_publish = True

    def __init__(self, file_system: Any, root: str, *, uri: str, field: str) -> None:
        self._file_system = file_system
        self._bucket, _, self._prefix = root.rstrip("/").partition("/")
        self.uri = uri
        self.field = field

    @classmethod
    def open(cls, uri: str, *, field: str, write: bool = False) -> S3Storage:
        """The store behind ``uri``, for publishing if ``write`` is set. Raises :class:`UserError`."""
        try:
            file_system, root = fsspec.core.url_to_fs(
                uri, skip_instance_cache=True, use_listings_cache=False, config_kwargs=_CONFIGURATION
            )
        except ImportError as error:
            raise UserError(
                f"this URI needs a package that is not installed ({error}).",
                field=field,
                value=uri,
                remedy="Run: pip install 'edgefolio[s3]' (for s3://), or use a directory.",
            ) from error
        storage = cls(file_system, str(root), uri=uri, field=field)
        storage._require_bucket()
        if write:
            storage._require_conditions()
        return storage

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        """All bytes at ``path``, at most ``maximum_bytes + 1``; ``None`` if it is missing."""
        return self._tag_and_content(path, maximum_bytes=maximum_bytes)[1]

    def open_at(self, path: str, *, offset: int = 0) -> RemoteStream:
        """A stream from ``offset`` on, or from 0 if the store knows no ranges. Raises ``FileNotFoundError``."""
        return self._opened(path, offset=offset)[1]

    def names(self, folder: str) -> tuple[str, ...]:
        """Sorted names below ``folder``, without hidden ones."""
        prefix = self._key(folder)
        prefix = f"{prefix}/" if prefix else ""
        try:
            with self._translated(folder):
                entries = wait_for(self._listed(prefix), seconds=_WRITE_SECONDS)
        except FileNotFoundError:
            return ()
        names = {entry.removeprefix(prefix).rstrip("/") for entry in entries}
        return tuple(sorted(name for name in names if name and not name.startswith(".")))

    def create(self, path: str, content: bytes) -> bool:
        """Write ``path`` only if nothing is there."""
        try:
            self._put_if(path, content, IfNoneMatch="*")
        except ChangedError:
            return False
        return True

    def write(self, path: str, content: bytes) -> None:
        """Write ``path``, replacing what was there."""
        with self._translated(path):
            self._call("put_object", path, seconds=_seconds_for(len(content)), Body=content)

    def write_file(self, path: str, source: Path) -> None:
        """Upload ``source``; readers see nothing of a killed upload."""
        seconds = _seconds_for(source.stat().st_size)
        with self._translated(path):
            wait_for(self._file_system._put_file(str(source), f"{self._bucket}/{self._key(path)}"), seconds=seconds)

    def update(self, path: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Replace the content if it is unchanged since it was read; else retry."""
        for attempt in range(_ATTEMPTS_TO_UPDATE):
            tag, before = self._tag_and_content(path)
            after = change(before)
            if after is None or after == before:
                return before
            try:
                self._put_if(path, after, **({"IfMatch": tag} if tag is not None else {"IfNoneMatch": "*"}))
                return after
            except ChangedError:
                pause(random.uniform(0, 0.02 * (attempt + 1)))
        raise self._contended(path)

    def delete(self, path: str) -> None:
        """Remove ``path``; no error if it is absent."""
        with contextlib.suppress(FileNotFoundError), self._translated(path):
            self._call("delete_object", path)

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)

    def _call(self, method: str, path: str | None, *, seconds: float = _WRITE_SECONDS, **arguments: Any) -> Any:
        """The answer to one request; ``path`` is ``None`` for one about the bucket."""
        key = {} if path is None else {"Key": self._key(path)}

        async def call() -> Any:
            return await getattr(await self._client(), method)(Bucket=self._bucket, **key, **arguments)

        return wait_for(call(), seconds=seconds)

    async def _client(self) -> Any:
        await self._file_system.set_session()
        return await self._file_system.get_s3(self._bucket)

    def _opened(self, path: str, *, offset: int) -> tuple[str | None, RemoteStream]:
        """ETag and stream. Raises ``FileNotFoundError``."""
        with self._translated(path):
            answer = self._get(path, f"bytes={offset}-") if offset else None
            if answer is not None and not str(answer.get("ContentRange", "")).startswith(f"bytes {offset}-"):
                answer["Body"].close()
                answer = None
            starts_at = offset if answer is not None else 0
            if answer is None:
                answer = self._get(path, None)
        assert answer is not None
        stream = RemoteStream(answer["Body"], starts_at=starts_at, translated=lambda: self._translated(path))
        return answer.get("ETag"), stream

    def _get(self, path: str, requested: str | None) -> Any:
        """The answer with the object; ``None`` if the store does not give the range ``requested``."""
        try:
            seconds = CONNECT_SECONDS + SILENT_SECONDS
            return self._call("get_object", path, seconds=seconds, **({"Range": requested} if requested else {}))
        except Exception as error:
            found = status_and_code(error)
            if requested and found is not None and (found[0] in (416, 501) or found[1] == "InvalidRange"):
                return None
            raise

    def _tag_and_content(self, path: str, *, maximum_bytes: int | None = None) -> tuple[str | None, bytes | None]:
        try:
            tag, stream = self._opened(path, offset=0)
        except FileNotFoundError:
            return None, None
        with stream:
            content = read_up_to(stream, maximum_bytes + 1 if maximum_bytes is not None else None)
        return tag, content

    async def _listed(self, prefix: str) -> list[str]:
        """Keys and common prefixes one level below ``prefix``. Raises :class:`UserError` for a listing without end."""
        client, found, token, letters = await self._client(), list[str](), None, 0
        while letters <= _LARGEST_LISTING_LETTERS:
            place: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "Delimiter": "/"}
            answer = await client.list_objects_v2(**place, **({"ContinuationToken": token} if token else {}))
            page = [str(entry["Key"]) for entry in answer.get("Contents", ())]
            page += [str(entry["Prefix"]) for entry in answer.get("CommonPrefixes", ())]
            found += page
            letters += sum(map(len, page))
            before, token = token, answer.get("NextContinuationToken")
            if not token:
                return found
            if token == before:
                break
        raise UserError(
            f"the store's listing of {prefix or 'the bucket'} has no end, or too many names.",
            field=self.field,
            value=self.uri,
            remedy="Give the portfolios a prefix of their own, and remove what does not belong there.",
        )

    def _put_if(self, path: str, content: bytes, **condition: Any) -> None:
        """Write under a condition. Raises :class:`ChangedError` if it does not hold."""
        for attempt in range(_ATTEMPTS_TO_UPDATE):
            try:
                with self._translated(path, condition=condition):
                    self._call("put_object", path, seconds=_seconds_for(len(content)), Body=content, **condition)
                return
            except BusyError:
                pause(random.uniform(0, 0.02 * (attempt + 1)))
            except UnsupportedError as error:
                raise self._without_conditions(f"answers {error}") from error
        raise self._contended(path)

    def _require_bucket(self) -> None:
        """Raise :class:`UserError` if there is no such bucket. A key that may not ask for it goes on."""
        with self._translated():
            wait_for(self._client(), seconds=_CLIENT_SECONDS)
            try:
                self._call("head_bucket", None, seconds=CONNECT_SECONDS + SILENT_SECONDS)
            except Exception as error:
                found = status_and_code(error)
                # 400 and 405: some stores do not know the request.
                if found is None or found[0] not in (400, 401, 403, 405):
                    raise

    def _require_conditions(self) -> None:
        """Raise :class:`UserError` if the store ignores conditions: publications could then be lost."""
        place = (str(wait_for(self._client(), seconds=_CLIENT_SECONDS).meta.endpoint_url), self.uri)
        if place in _KEEPS_CONDITIONS:
            return
        path = f".edgefolio-{secrets.token_hex(8)}"
        try:
            first = self.create(path, b"1")
            if not first or self.create(path, b"2"):
                raise self._without_conditions("ignores If-None-Match")
            try:
                self._put_if(path, b"3", IfMatch='"00000000000000000000000000000000"')
            except ChangedError:
                pass
            else:
                raise self._without_conditions("ignores If-Match")
            tag, _ = self._tag_and_content(path)
            try:
                self._put_if(path, b"4", IfMatch=tag or "")
            except ChangedError as error:
                raise self._without_conditions("refuses an If-Match that holds") from error
        finally:
            # Those who may not delete leave the object; its name is hidden.
            with contextlib.suppress(EdgefolioError):
                self.delete(path)
        _KEEPS_CONDITIONS.add(place)

    def _without_conditions(self, how: str) -> UserError:
        return UserError(
            f"this store has no conditional writes (it {how}): publications at the same time could undo each other.",
            field=self.field,
            value=self.uri,
            remedy="Use a store that has them (AWS S3, a current MinIO or Ceph), or publish to a directory or a claim.",
        )

    def _contended(self, path: str) -> UserError:
        return TransientError(
            "others change it all the time.",
            field=self.field,
            value=f"{self.uri}: {path}",
            remedy="Publish one portfolio of this model at a time.",
        )

    @contextlib.contextmanager
    def _translated(self, path: str = "", *, condition: Iterable[str] = ()) -> Iterator[None]:
        """Turn every failure into one of ours, except for a missing object and a condition that does not hold."""
        try:
            yield
        except EdgefolioError:
            raise
        except Exception as error:  # botocore, aiohttp and ssl raise their own kinds
            if isinstance(error, FileNotFoundError) and status_and_code(error) is None:
                raise
            if condition:
                raise_for_condition(error, replacing="IfMatch" in condition)
            raise_translated(error, uri=self.uri, field=self.field, path=path)


def _seconds_for(size: int) -> float:
    return _WRITE_SECONDS + size / _LEAST_UPLOAD_BYTES_PER_SECOND
