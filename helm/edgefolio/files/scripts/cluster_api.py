"""The API server, as a pod's own service account enters it. Standard library only."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Object = dict[str, Any]

ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
#: Path of the portfolios of a namespace.
PORTFOLIOS = "/apis/edgefolio.dev/v1alpha1/namespaces/{namespace}/modelportfolios"
#: Path of all of them.
ALL_PORTFOLIOS = "/apis/edgefolio.dev/v1alpha1/modelportfolios"
#: A lease that was not renewed for this long has no holder.
LEASE_SECONDS = 30.0


class Refused(Exception):  # noqa: N818
    """The API server refused, with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Api:
    """The API server, entered as the pod's service account."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def request(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        """The answer. Raises :class:`Refused`, and OSError when there is none."""
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
                "Content-Type": content_type,
            },
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=20) as answer:
                result: Object = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(2000).decode(errors="replace")
            try:
                message = str(json.loads(text)["message"])
            except (ValueError, KeyError, TypeError):
                message = text
            raise Refused(error.code, message) from None


def holder_of_lease(api: Api, *, namespace: str) -> str | None:
    """Who acts as operator there."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/edgefolio-operator"
    try:
        spec = api.request("GET", path)["spec"]
    except Refused as error:
        if error.status != 404:
            raise
        return None
    renewed = datetime.fromisoformat(spec["renewTime"])
    age = (datetime.now(tz=UTC) - renewed).total_seconds()
    holder: str | None = spec.get("holderIdentity")
    return holder if holder and age < LEASE_SECONDS else None


def say(text: str) -> None:
    """One line of the log."""
    print(f"{datetime.now(tz=UTC):%H:%M:%S} {text}", flush=True)
