"""API client of the agent: gets and watches its own ModelEndpoint, and writes its status."""

from __future__ import annotations

from collections.abc import Iterator

from edgefolio.kubernetes.sync_client import ApiRefused, Object, SyncClient
from edgefolio.specification.resource import API_VERSION

MANAGER = "edgefolio-agent"
"""Field manager of the status."""


class EndpointClient:
    """One ModelEndpoint on the API server. Every method raises ApiRefused and ApiUnreachable."""

    def __init__(self, client: SyncClient, *, namespace: str, name: str) -> None:
        self._client = client
        self._collection = f"/apis/{API_VERSION}/namespaces/{namespace}/modelendpoints"
        self._metadata = {"name": name, "namespace": namespace}

    def get(self) -> Object | None:
        """The object; ``None`` if the operator has not created it yet."""
        try:
            return self._client.request("GET", f"{self._collection}/{self._metadata['name']}")
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    def watch(self, *, version: str, seconds: int) -> Iterator[Object]:
        """The object after each change since ``version``, for ``seconds``; then it ends."""
        query = {"fieldSelector": f"metadata.name={self._metadata['name']}"}
        for kind, thing in self._client.watch(self._collection, version=version, seconds=seconds, query=query):
            if kind in ("ADDED", "MODIFIED"):
                yield thing

    def report(self, status: Object) -> None:
        """Write the object's status."""
        document = {"apiVersion": API_VERSION, "kind": "ModelEndpoint", "metadata": self._metadata, "status": status}
        path = f"{self._collection}/{self._metadata['name']}/status"
        self._client.apply(path, document, manager=MANAGER)
