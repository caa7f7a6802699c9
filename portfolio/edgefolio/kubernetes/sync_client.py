"""Synchronous client of the API server: requests, server-side apply, watches. Standard library only."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from edgefolio.kubernetes.access import Access

Object = dict[str, Any]

_REQUEST_SECONDS = 10.0


class ApiUnreachable(OSError):  # noqa: N818 - a state of the world, not a mistake
    """The API server gave no answer, or no valid one."""


class ApiRefused(Exception):  # noqa: N818
    """The API server answered and refused, with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class SyncClient:
    """The API server of ``access``; a request without an answer after ``timeout`` seconds is given up."""

    def __init__(self, access: Access, *, timeout: float = _REQUEST_SECONDS) -> None:
        self._access = access
        self._timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Send a request. Raises :class:`ApiRefused` and :class:`ApiUnreachable`."""
        with self._open(method, path, body, content_type=content_type, query=query, timeout=self._timeout) as answer:
            try:
                result: Object = json.load(answer)
            except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
                raise ApiUnreachable(str(error)) from error
            return result

    def apply(self, path: str, document: Object, *, manager: str) -> Object:
        """Server-side apply ``document``; conflicting fields are taken over."""
        query = {"fieldManager": manager, "force": "true"}
        return self.request("PATCH", path, document, content_type="application/apply-patch+yaml", query=query)

    def watch(
        self, path: str, *, version: str, seconds: int, query: Mapping[str, str] | None = None
    ) -> Iterator[tuple[str, Object]]:
        """Changes since ``version`` as type and object, for ``seconds``; then it ends.

        Raises :class:`ApiRefused` (410: ``version`` is too old) and :class:`ApiUnreachable`.
        """
        whole = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds), **(query or {})}
        with self._open("GET", path, query=whole, timeout=seconds + self._timeout) as answer:
            for line in _lines(answer):
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError) as error:  # the link was cut in the middle of a line
                    raise ApiUnreachable(str(error)) from error
                if event["type"] == "ERROR":
                    raise ApiRefused(int(event["object"].get("code", 500)), str(event["object"].get("message", "")))
                yield event["type"], event["object"]

    def _open(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Any:
        credentials = self._access.current()
        request = urllib.request.Request(
            f"{credentials.server}{path}?{urllib.parse.urlencode(query)}" if query else credentials.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, **credentials.headers},
        )
        try:
            return urllib.request.urlopen(request, context=credentials.tls, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiRefused(error.code, _message(error.read(2000).decode(errors="replace"))) from error
        except (OSError, http.client.HTTPException) as error:
            raise ApiUnreachable(str(error)) from error


def _message(text: str) -> str:
    """The message of a Status object, else the text itself."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


def _lines(answer: Any) -> Iterator[bytes]:
    try:
        yield from answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ApiUnreachable(str(error)) from error
