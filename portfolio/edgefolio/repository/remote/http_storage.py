"""Read-only storage on a web server: https://, and http:// for servers of one's own network.

A plain web server will do. Each status is told apart (an overloaded server has lost no file); redirects are followed a
few times and never from https to http. Credentials come from ``EDGEFOLIO_NETRC`` (the lines of a netrc file, as a
Secret holds them) or the file that ``NETRC`` names, and go to the host that they name and no other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import ssl
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import NoReturn

import aiohttp
import yarl
from fsspec.asyn import iothread

from edgefolio.errors import EdgefolioError, TransientError, UserError
from edgefolio.repository.remote.calls import (
    CONNECT_SECONDS,
    SILENT_SECONDS,
    RemoteStream,
    SlowError,
    read_up_to,
    wait_for,
)
from edgefolio.transient_errors import FORBIDDEN_STATUSES, MISSING_STATUSES, is_passing_status

NETRC_VARIABLE = "EDGEFOLIO_NETRC"
#: A file of a download service is two redirects away; more is a loop.
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: A listing is a page of links; a larger one is none.
_LARGEST_LISTING_BYTES = 4 << 20
#: No tag is searched beyond the next one's beginning: a page of ``<a <a <a`` would else take the square of its length,
#: and hold up every thread for it.
_LINK = re.compile(r"""<a\s[^<>]*?href\s*=\s*["']([^"'?#]+)["']""", re.IGNORECASE)
_BUFFER_BYTES = 64 << 10
#: Enough to know a web page by.
_PAGE_BYTES = 64
_NETRC_ENTRY = re.compile(r"\bmachine\s+(\S+)\s+login\s+(\S+)\s+password\s+(\S+)")


class HttpStorage:
    """See :class:`edgefolio.repository.storage.Storage`."""

    can_publish = False

    def __init__(self, uri: str, *, field: str) -> None:
        self.uri = uri
        self.field = field
        self._root = yarl.URL(uri)
        self._session: aiohttp.ClientSession | None = None

    def read(self, path: str, *, maximum_bytes: int) -> bytes | None:
        """All bytes at ``path``, at most ``maximum_bytes + 1``; ``None`` if it is missing."""
        try:
            with self.open_at(path) as stream:
                return read_up_to(stream, maximum_bytes + 1)
        except FileNotFoundError:
            return None

    def open_at(self, path: str, *, offset: int = 0) -> RemoteStream:
        """A stream from ``offset`` on, or from 0 if the server knows no ranges. Raises ``FileNotFoundError``."""
        with self._translated(path):
            body, starts_at = wait_for(self._opened(self._full(path), offset), seconds=CONNECT_SECONDS + SILENT_SECONDS)
            if body.status not in (200, 206):
                body.close()
                self._refuse(body.status, path)
        return RemoteStream(body, starts_at=starts_at, translated=lambda: self._translated(path))

    def names(self, folder: str) -> tuple[str, ...]:
        """Names that the server's listing of ``folder`` links to; empty where it gives no listing."""
        url = self._full(folder)
        listing = url if url.path.endswith("/") else url.with_path(url.path + "/")
        with self._translated(folder):
            body, _ = wait_for(self._opened(listing, 0), seconds=CONNECT_SECONDS + SILENT_SECONDS)
            if body.status != 200:
                body.close()
                # Listings are off on many servers, and 403 and 404 are how they say so.
                if body.status in FORBIDDEN_STATUSES | MISSING_STATUSES | {405}:
                    return ()
                self._refuse(body.status, folder)
        with RemoteStream(body, starts_at=0, translated=lambda: self._translated(folder)) as stream:
            page = read_up_to(stream, _LARGEST_LISTING_BYTES).decode(errors="replace")
        found = (_child(listing, link) for link in _LINK.findall(page))
        return tuple(sorted({name for name in found if name and not name.startswith(".")}))

    def _cannot_publish(self, *_: object, **__: object) -> NoReturn:
        """Refused: a web server is only read."""
        raise UserError(
            "portfolios can be read from here, but not published to it.",
            field=self.field,
            value=self.uri,
            remedy="Publish to a directory or to s3://bucket/prefix.",
        )

    create = write = write_file = update = delete = _cannot_publish

    def _full(self, path: str) -> yarl.URL:
        return self._root / path if path else self._root

    async def _opened(self, url: yarl.URL, offset: int) -> tuple[_Body, int]:
        """The answer from ``offset`` on, and the offset at which it begins."""
        if offset:
            response = await self._get(url, {"Range": f"bytes={offset}-"})
            content_range = response.headers.get("Content-Range", "")
            if response.status == 206 and content_range.startswith(f"bytes {offset}-"):
                return _Body(response), offset
            if response.status not in (206, 416):
                return self._whole(response), 0
            response.close()  # another range than asked for, or none so far on: all of it again
        return self._whole(await self._get(url, {})), 0

    def _whole(self, response: aiohttp.ClientResponse) -> _Body:
        if response.status == 206:
            response.close()
            raise aiohttp.ClientPayloadError("part of the file was sent where all of it was requested")
        return _Body(response, may_be_page=response.url.path.endswith("/"))

    async def _get(self, url: yarl.URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        session = await self._opened_session()
        for _ in range(_MOST_REDIRECTS + 1):
            response = await session.get(url, headers={**headers, **_credentials(url)}, allow_redirects=False)
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or target is None:
                return response
            response.close()
            following = url.join(yarl.URL(target))
            if following.scheme not in ("http", "https") or (url.scheme, following.scheme) == ("https", "http"):
                raise _UnexpectedError(f"it redirects to {following.scheme}://, which is not followed")
            url = following
        raise _UnexpectedError(f"it redirects more than {_MOST_REDIRECTS} times")

    async def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # aiohttp 3.14 reads the trusted certificates once, when it is imported; they may be replaced meanwhile.
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
            self._session = aiohttp.ClientSession(
                connector=connector,
                # What is served is taken as it is: a compressed answer could unpack to any size.
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "edgefolio"},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                read_bufsize=_BUFFER_BYTES,
                trust_env=True,
            )
            weakref.finalize(self, _close, asyncio.get_running_loop(), self._session)
        return self._session

    def _refuse(self, status: int, path: str) -> NoReturn:
        """Raise the error of an answer without the file."""
        if status in MISSING_STATUSES:
            raise FileNotFoundError(path)
        where = f" for {path}" if path else ""
        if status in FORBIDDEN_STATUSES:
            raise UserError(
                f"the server refuses access (HTTP {status}{where}).",
                field=self.field,
                value=self.uri,
                remedy=f"Check the credentials ({NETRC_VARIABLE} in the Secret) and that they may read it.",
            )
        kind = TransientError if is_passing_status(status) else UserError
        remedy = "It is tried again." if is_passing_status(status) else "Check the address."
        raise kind(f"the server answers HTTP {status}{where}.", field=self.field, value=self.uri, remedy=remedy)

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """Turn every failure of the way to the server into a :class:`TransientError`."""
        try:
            yield
        except (EdgefolioError, FileNotFoundError):
            raise
        except Exception as error:  # aiohttp, ssl and the resolver raise their own kinds
            what = str(error) if isinstance(error, SlowError | _UnexpectedError) else _in_words(error)
            raise TransientError(
                f"the server cannot be read{f' at {path}' if path else ''} ({what}).",
                field=self.field,
                value=self.uri,
                remedy="Check the address and the network.",
            ) from error


class _UnexpectedError(Exception):
    """A redirect that is not followed, or a web page in place of a file."""


class _Body:
    """The body of one HTTP answer, which is no web page unless it ``may_be_page``: a login, or a hotel's network."""

    def __init__(self, response: aiohttp.ClientResponse, *, may_be_page: bool = True) -> None:
        self.status = response.status
        self._response = response
        self._looked_at = may_be_page
        self._ahead = b""

    async def read(self, size: int, /) -> bytes:
        if not self._looked_at:
            await self._refuse_page()
        if self._ahead:
            chunk, self._ahead = self._ahead[:size], self._ahead[size:]
            return chunk
        return await self._response.content.read(size)

    def close(self) -> None:
        self._response.close()

    async def _refuse_page(self) -> None:
        beginning = b""
        while len(self._ahead) < _PAGE_BYTES and (chunk := await self._response.content.read(_PAGE_BYTES)):
            self._ahead += chunk
            beginning = self._ahead.lstrip().lower()
            if beginning and not beginning.startswith(b"<"):
                break  # neither JSON nor ONNX begins like a page
        html = self._response.content_type == "text/html"
        if beginning.startswith((b"<!doctype html", b"<html")) or (html and beginning.startswith(b"<")):
            raise _UnexpectedError("it sends a web page instead of the file, perhaps from a login or proxy")
        self._looked_at = True


def _child(folder: yarl.URL, link: str) -> str | None:
    """The name of the entry of ``folder`` that ``link`` leads to; ``None`` for a link to anywhere else."""
    try:
        target = folder.join(yarl.URL(link))
    except ValueError:
        return None
    inside = target.path.removeprefix(folder.path)
    if target.origin() != folder.origin() or inside == target.path:
        return None
    name = inside.removesuffix("/")
    return name if name and "/" not in name else None


def _credentials(url: yarl.URL) -> dict[str, str]:
    """The header with user and password for the host of ``url``; never over http://, where all can read them."""
    text = os.environ.get(NETRC_VARIABLE, "")
    if url.scheme != "https" or url.user is not None or not text.strip():
        return {}
    entries = {host: f"{user}:{password}" for host, user, password in _NETRC_ENTRY.findall(text)}
    if not entries:
        raise UserError(
            "it holds no entry.",
            field=NETRC_VARIABLE,
            remedy="Write: machine HOST login USER password PASSWORD",
        )
    found = entries.get(url.host or "")
    return {"Authorization": f"Basic {base64.b64encode(found.encode()).decode()}"} if found is not None else {}


def _in_words(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return f"its certificate is not accepted: {' '.join(str(error).split())[:200]}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")


def _close(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    if not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
    if threading.current_thread() is not iothread[0]:  # the garbage collector runs in any thread
        with contextlib.suppress(TimeoutError):
            closing.result(timeout=1.0)
