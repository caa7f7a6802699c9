"""The few calls to the Kubernetes API that the operator needs, over aiohttp.

The official client would be most of the operator's memory; kopf brings aiohttp anyway. Writing is server-side apply
under one field manager: what the operator no longer says is taken away, what others say is left alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from edgefolio_operator.kube.objects import Object
from edgefolio_operator.labels import MANAGER

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REQUEST_SECONDS = 20.0
#: The server ends a watch after this long; it sends a bookmark about once a minute, so that silence means a dead link.
_WATCH_SECONDS = 240
_SILENCE_SECONDS = 90.0
#: A request that is cancelled leaves a TLS connection that waits for the other side's goodbye; the pool forgets it.
_GOODBYE_SECONDS = 0.25


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


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the API server is and how it is entered; ``token`` is asked each time, since it is renewed on disk."""

    server: str
    tls: ssl.SSLContext
    token: Callable[[], str | None]
    namespace: str

    @classmethod
    def found(cls) -> Access:
        """Of the pod's service account, or of ``KUBECONFIG`` outside a cluster. Raises OSError if there is neither."""
        if (_SERVICE_ACCOUNT / "token").exists():
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            return cls(
                server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
                tls=ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt")),
                token=lambda: (_SERVICE_ACCOUNT / "token").read_text().strip(),
                namespace=(_SERVICE_ACCOUNT / "namespace").read_text().strip(),
            )
        return cls.of_kubeconfig(Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"))

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Access:
        """Of the current context of the file ``path``: certificates or a token, no plug-ins."""
        document = yaml.safe_load(path.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        authority = cluster.get("certificate-authority-data")
        tls = ssl.create_default_context(
            cafile=cluster.get("certificate-authority"),
            cadata=base64.b64decode(authority).decode() if authority else None,
        )
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pem:
                for key in ("client-certificate-data", "client-key-data"):
                    pem.write(base64.b64decode(user[key]))
                pem.flush()
                tls.load_cert_chain(pem.name)
        elif "client-certificate" in user:
            tls.load_cert_chain(user["client-certificate"], user["client-key"])
        token: str | None = user.get("token")
        return cls(
            server=cluster["server"], tls=tls, token=lambda: token, namespace=context.get("namespace", "default")
        )


class Api:
    """One connection pool to the API server; use it as an async context."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.writes: Callable[[str], None] = lambda _kind: None
        self._answered_at = time.monotonic()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.access.tls, limit=32),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        await asyncio.sleep(_GOODBYE_SECONDS)

    @property
    def silent_seconds(self) -> float:
        """Seconds since the API server answered anything at all."""
        return time.monotonic() - self._answered_at

    async def get(self, path: str, *, selector: str = "") -> Object:
        """The object at ``path``, or a collection as it is, of what carries the labels of ``selector``."""
        return await self._request("GET", path, params={"labelSelector": selector} if selector else None)

    async def text(self, path: str, params: dict[str, str], *, longest_seconds: float) -> str:
        """What stands at ``path`` as plain text, a log as a rule."""
        assert self._session is not None
        async with self._session.get(
            self.access.server + path,
            params=params,
            headers={**self._headers(), "Accept": "*/*"},
            timeout=aiohttp.ClientTimeout(total=longest_seconds),
        ) as answer:
            raw = await answer.read()
            if answer.status >= 400:
                raise _error(answer.status, raw)
            return raw.decode(errors="replace")

    async def create(self, path: str, document: Object) -> Object:
        """Create ``document`` in the collection ``path``."""
        self.writes(document["kind"])
        return await self._request("POST", path, document)

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

    async def merge(self, path: str, patch: Object) -> Object:
        """Merge ``patch`` into the object at ``path``."""
        self.writes("Patch")
        return await self._request(
            "PATCH", path, patch, content_type="application/merge-patch+json", params={"fieldManager": MANAGER}
        )

    async def delete(self, path: str) -> None:
        """Delete the object at ``path`` and, in the background, what it owns; one that is gone is no error."""
        self.writes("Delete")
        try:
            await self._request("DELETE", path, params={"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    async def list(self, path: str, *, selector: str = "") -> tuple[list[Object], str]:
        """All objects of a collection that carry the labels of ``selector``, and the version of the list."""
        answer = await self.get(path, selector=selector)
        kind = str(answer["kind"]).removesuffix("List")
        items = [{"apiVersion": answer["apiVersion"], "kind": kind, **item} for item in answer.get("items") or ()]
        return items, str((answer.get("metadata") or {}).get("resourceVersion", ""))

    async def watch(self, path: str, *, version: str, selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        """Changes of a collection since ``version``: ADDED, MODIFIED, DELETED, BOOKMARK; ends after some minutes.

        Raises :class:`ApiError` (410 if ``version`` is too old) and :class:`aiohttp.ClientError`.
        """
        assert self._session is not None
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
            **({"labelSelector": selector} if selector else {}),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=_REQUEST_SECONDS, sock_read=_SILENCE_SECONDS)
        async with self._session.get(
            self.access.server + path, params=parameters, headers=self._headers(), timeout=timeout
        ) as answer:
            if answer.status >= 400:
                raise _error(answer.status, await answer.read())
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield event["type"], event["object"]

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Object:
        assert self._session is not None
        async with self._session.request(
            method,
            self.access.server + path,
            params=params,
            data=None if body is None else json.dumps(body),
            headers={**self._headers(), "Content-Type": content_type},
        ) as answer:
            raw = await answer.read()
            self._answered_at = time.monotonic()
            if answer.status >= 400:
                raise _error(answer.status, raw)
            result: Object = json.loads(raw)
            return result

    def _headers(self) -> dict[str, str]:
        token = self.access.token()
        return {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}


def collection(api_version: str, plural: str, namespace: str | None = None) -> str:
    """Path of a collection: ``collection("batch/v1", "jobs", "models")``."""
    prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


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
    except (ValueError, AttributeError):
        return ApiError(status, "", raw[:300].decode(errors="replace"))


def _named(entries: list[Object], name: str) -> Object:
    return next(entry for entry in entries if entry["name"] == name)
