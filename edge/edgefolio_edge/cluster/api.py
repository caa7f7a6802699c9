"""The two calls an agent makes to the API server: follow its own ModelEndpoint, and write that one's status.

Standard library only: the agent runs beside Triton on small nodes.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgefolio.errors import UserError
from edgefolio.specification.resource import API_VERSION

Object = dict[str, Any]

MANAGER = "edgefolio-agent"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REQUEST_SECONDS = 10.0


class ApiUnreachable(Exception):  # noqa: N818 - a state of the world, not a mistake
    """The API server did not answer, or not with sense."""


class ApiRefused(Exception):  # noqa: N818
    """The API server answered and refused, with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the API server is and how it is entered; ``token`` is read each time, since it is renewed on disk."""

    server: str
    tls: ssl.SSLContext
    token: Callable[[], str | None]

    @classmethod
    def found(cls) -> Access:
        """Of the pod's service account, or of ``KUBECONFIG`` outside a pod. Raises :class:`UserError` if neither."""
        if (_SERVICE_ACCOUNT / "token").exists():
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            return cls(
                server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
                tls=ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt")),
                token=lambda: (_SERVICE_ACCOUNT / "token").read_text().strip(),
            )
        path = os.environ.get("KUBECONFIG")
        if not path:
            raise UserError(
                "there is no service account, and no kubeconfig.",
                field="KUBECONFIG",
                remedy="Run the agent in a pod with its service account, or name a kubeconfig.",
            )
        return cls._of_kubeconfig(Path(path))

    @classmethod
    def _of_kubeconfig(cls, path: Path) -> Access:
        document = yaml.safe_load(path.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
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
        token: str | None = user.get("token")
        return cls(server=cluster["server"], tls=tls, token=lambda: token)


class EndpointApi:
    """One ModelEndpoint on the API server."""

    def __init__(self, access: Access, *, namespace: str, name: str) -> None:
        self._access = access
        self._collection = f"/apis/{API_VERSION}/namespaces/{namespace}/modelendpoints"
        self._namespace = namespace
        self._name = name

    def get(self) -> Object | None:
        """The object, ``None`` if the operator has not made it yet."""
        try:
            return self._request("GET", f"{self._collection}/{self._name}")
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    def watch(self, *, version: str, seconds: int) -> Iterator[Object]:
        """The object after each change since ``version``, for ``seconds``; then it ends."""
        query = urllib.parse.urlencode(
            {
                "watch": "true",
                "fieldSelector": f"metadata.name={self._name}",
                "resourceVersion": version,
                "timeoutSeconds": seconds,
            }
        )
        with self._open("GET", f"{self._collection}?{query}", timeout=seconds + _REQUEST_SECONDS) as answer:
            for line in _lines(answer):
                try:
                    event = json.loads(line)
                except ValueError as error:  # the link was cut in the middle of a line
                    raise ApiUnreachable(str(error)) from error
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]
                elif event["type"] == "ERROR":
                    raise ApiRefused(int(event["object"].get("code", 500)), str(event["object"].get("message", "")))

    def report(self, status: Object) -> None:
        """Write the object's status."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "ModelEndpoint",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "status": status,
        }
        self._request(
            "PATCH",
            f"{self._collection}/{self._name}/status?fieldManager={MANAGER}&force=true",
            document,
            content_type="application/apply-patch+yaml",
        )

    def _request(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        with self._open(method, path, body, content_type=content_type) as answer:
            try:
                result: Object = json.load(answer)
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise ApiUnreachable(str(error)) from error
            return result

    def _open(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        timeout: float = _REQUEST_SECONDS,
    ) -> Any:
        token = self._access.token()
        request = urllib.request.Request(
            self._access.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, **({"Authorization": f"Bearer {token}"} if token else {})},
        )
        try:
            return urllib.request.urlopen(request, context=self._access.tls, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiRefused(error.code, error.read(2000).decode(errors="replace")) from error
        except (OSError, http.client.HTTPException) as error:
            raise ApiUnreachable(str(error)) from error


def _lines(answer: Any) -> Iterator[bytes]:
    try:
        yield from answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ApiUnreachable(str(error)) from error
