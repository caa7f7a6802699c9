"""Asynchronous client of the API server, over aiohttp.

The official client would be most of the operator's memory; kopf brings aiohttp anyway. Writing is server-side apply
under one field manager: a field that the operator no longer sets is removed, fields of others are left alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from types import MappingProxyType

import aiohttp

from edgefolio.kubernetes.access import Access
from edgefolio_operator.kube.objects import Object, part_of
from edgefolio_operator.labels import MANAGER

_REQUEST_SECONDS = 20.0
#: More than all workers use at once: hanging writes leave connections for other portfolios.
_CONNECTIONS = 96
_TIMEOUT = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
#: The server ends a watch after this long; it sends a bookmark about once a minute, so that silence means a dead link.
_WATCH_SECONDS = 240
SILENCE_SECONDS = 90.0
#: A cancelled request leaves a TLS connection that waits for close_notify; the pool drops it.
_GOODBYE_SECONDS = 0.25
_NOT_UNDERSTOOD = "AnswerNotUnderstood"


class ApiError(Exception):
    """The API server refused: HTTP ``status``, its ``reason`` in one word, its message, and ``causes`` in one word."""

    def __init__(self, status: int, reason: str, message: str, *, causes: tuple[str, ...] = ()) -> None:
        self.status = status
        self.reason = reason
        self.causes = causes
        super().__init__(message)

    @property
    def is_of_an_ending_namespace(self) -> bool:
        """Whether nothing can be created because the namespace is being deleted."""
        return self.status == 403 and "NamespaceTerminating" in self.causes


class Api:
    """Client of the API server; use it as an async context.

    ``writes`` is called with the kind before each write. A watch silent for ``silence_seconds`` is given up.
    """

    def __init__(self, access: Access, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self.access = access
        self.writes: Callable[[str], None] = lambda _kind: None
        self._silence_seconds = silence_seconds
        self._answered_at = time.monotonic()
        self._server_lead: float | None = None
        self._requests: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        self._requests = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_CONNECTIONS))
        # Each watch holds its connection: in one pool, those of many namespaces would leave none for requests.
        self._watches = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._requests is not None
        assert self._watches is not None
        await self._requests.close()
        await self._watches.close()
        await asyncio.sleep(_GOODBYE_SECONDS)

    @property
    def silent_seconds(self) -> float:
        """Seconds since the API server's last answer."""
        return time.monotonic() - self._answered_at

    def clock_offset(self, now: float) -> float:
        """How far the API server's clock is ahead of ``now``; 0 where they differ by less than answers may take."""
        if self._server_lead is None:
            return 0.0
        offset = self._server_lead + time.monotonic() - now
        return offset if abs(offset) > _REQUEST_SECONDS else 0.0

    async def get(self, path: str, *, selector: str = "", fields: str = "") -> Object:
        """The object or collection at ``path``, filtered by the labels of ``selector`` and by ``fields``."""
        chosen = {"labelSelector": selector, "fieldSelector": fields}
        return await self._request("GET", path, params={key: value for key, value in chosen.items() if value} or None)

    async def text(self, path: str, params: dict[str, str], *, longest_seconds: float) -> str:
        """The plain text at ``path``, usually a log."""
        timeout = aiohttp.ClientTimeout(total=longest_seconds)
        async with self._open("GET", path, params, headers={"Accept": "*/*"}, timeout=timeout) as answer:
            raw = await answer.read()
            if answer.status >= 400:
                raise _error(answer.status, raw)
            return raw.decode(errors="replace")

    async def create(self, path: str, document: Object) -> Object:
        """Create ``document`` in the collection ``path``. Refused with 409 if there is one of its name."""
        self.writes(document["kind"])
        return await self._request("POST", path, document, params={"fieldManager": MANAGER})

    async def is_ending(self, namespace: str) -> bool:
        """Whether ``namespace`` is being deleted, asked by a creation that is only tried: it needs no right to read."""
        version = "coordination.k8s.io/v1"
        probe = {"apiVersion": version, "kind": "Lease", "metadata": {"name": MANAGER, "namespace": namespace}}
        try:
            # The one kind that it may create in its own namespace, wherever that is.
            await self._request("POST", collection(version, "leases", namespace), probe, params={"dryRun": "All"})
        except ApiError as error:
            return error.is_of_an_ending_namespace
        return False

    async def replace(self, path: str, document: Object) -> Object:
        """Replace the object at ``path``; refused with 409 if its resourceVersion is not the stored one."""
        self.writes(document["kind"])
        return await self._request("PUT", path, document)

    async def apply(self, document: Object, *, plural: str, subresource: str = "") -> Object:
        """Server-side apply ``document``."""
        self.writes(document["kind"])
        metadata = document["metadata"]
        path = collection(document["apiVersion"], plural, metadata.get("namespace")) + f"/{metadata['name']}"
        return await self._request(
            "PATCH",
            f"{path}/{subresource}" if subresource else path,
            document,
            content_type="application/apply-patch+yaml",
            params={"fieldManager": MANAGER, "force": "true"},
        )

    async def merge(self, path: str, patch: Object, *, dry_run: bool = False) -> Object:
        """Merge ``patch`` into the object at ``path``, or only try to."""
        if not dry_run:
            self.writes("Patch")
        params = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        return await self._request("PATCH", path, patch, content_type="application/merge-patch+json", params=params)

    async def patch_fields(self, path: str, entries: Sequence[Object], *, version: str) -> Object:
        """Replace ``metadata.managedFields`` of the object at ``path``, if it is still that of ``version``."""
        self.writes("Patch")
        patch: list[Object] = [
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        ]
        return await self._request("PATCH", path, patch, content_type="application/json-patch+json")

    async def delete(self, path: str, *, uid: str = "") -> None:
        """Delete the object at ``path`` and, in the background, what it owns; one that does not exist is no error.

        Refused with 409 if it is not the one of ``uid``.
        """
        self.writes("Delete")
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", path, {**options, **({"preconditions": {"uid": uid}} if uid else {})})
        except ApiError as error:
            if error.status != 404:
                raise

    async def list(self, path: str, *, selector: str = "") -> tuple[list[Object], str]:
        """All objects of a collection that carry the labels of ``selector``, and the version of the list."""
        answer = await self.get(path, selector=selector)
        listed = answer.get("items") or []
        if not isinstance(answer.get("kind"), str) or not isinstance(listed, list):
            raise ApiError(200, _NOT_UNDERSTOOD, f"the answer of {path} is no list of objects")
        head = {"apiVersion": answer.get("apiVersion"), "kind": answer["kind"].removesuffix("List")}
        items: list[Object] = [{**head, **item} for item in listed if isinstance(item, Mapping)]
        return items, str(part_of(answer, "metadata", "resourceVersion") or "")

    async def watch(self, path: str, *, version: str, selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        """Changes of a collection since ``version``: ADDED, MODIFIED, DELETED, BOOKMARK; ends after some minutes.

        Raises :class:`ApiError` (410 if ``version`` is too old) and :class:`aiohttp.ClientError`.
        """
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
            **({"labelSelector": selector} if selector else {}),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=_REQUEST_SECONDS, sock_read=self._silence_seconds)
        async with self._open("GET", path, parameters, timeout=timeout, session=self._watches) as answer:
            if answer.status >= 400:
                raise _error(answer.status, await answer.read())
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    kind, thing = _event(line)
                    if kind == "ERROR":
                        code = thing.get("code")
                        reason, message = str(thing.get("reason", "")), str(thing.get("message", ""))
                        raise ApiError(code if isinstance(code, int) else 500, reason, message)
                    yield kind, thing

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | Sequence[Object] | None = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Object:
        headers = {"Content-Type": content_type}
        data = None if body is None else json.dumps(body)
        async with self._open(method, path, params, data=data, headers=headers) as answer:
            raw = await answer.read()
            self._answered_at = time.monotonic()
            self._note_date(answer.headers.get("Date"))
            if answer.status >= 400:
                raise _error(answer.status, raw)
            return _decoded(raw, status=answer.status)

    def _note_date(self, text: str | None) -> None:
        try:
            said = parsedate_to_datetime(text or "").timestamp()
        except (ValueError, OverflowError):
            return
        self._server_lead = said - self._answered_at

    def _open(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        *,
        data: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
        session: aiohttp.ClientSession | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        session = session or self._requests
        assert session is not None, "the client is used outside its context"
        credentials = self.access.current()
        return session.request(
            method,
            credentials.server + path,
            params=params,
            data=data,
            headers={"Accept": "application/json", **credentials.headers, **headers},
            timeout=timeout,
            # Connections are pooled by TLS context: a rotated CA gets new connections.
            ssl=credentials.tls or True,
        )


def collection(api_version: str, plural: str, namespace: str | None = None) -> str:
    """Path of a collection: ``collection("batch/v1", "jobs", "models")``."""
    prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def _decoded(raw: bytes, *, status: int = 200) -> Object:
    """The object that an answer holds. Raises :class:`ApiError` for anything else, as a broken proxy sends."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(status, _NOT_UNDERSTOOD, f"the answer is not JSON: {raw[:100]!r}") from error
    if not isinstance(found, Mapping):
        raise ApiError(status, _NOT_UNDERSTOOD, f"the answer is no object: {raw[:100]!r}")
    return found


def _event(line: bytes) -> tuple[str, Object]:
    event = _decoded(line)
    kind, thing = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(thing, Mapping):
        raise ApiError(200, _NOT_UNDERSTOOD, f"a watch event is not understood: {line[:100]!r}")
    return kind, thing


def _error(status: int, raw: bytes) -> ApiError:
    try:
        document = json.loads(raw)
        causes = (document.get("details") or {}).get("causes") or ()
        return ApiError(
            status,
            str(document.get("reason", "")),
            str(document.get("message", "")),
            causes=tuple(str(cause.get("reason", "")) for cause in causes),
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ApiError(status, "", raw[:300].decode(errors="replace"))
