"""What both scripts share: the API server as the pod's service account enters it, the operator's lease, the log.

The scripts run in the operator's image, which holds the client.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from edgefolio.kubernetes.access import SERVICE_ACCOUNT, Access
from edgefolio.kubernetes.sync_client import ApiRefused, SyncClient

#: Path of the portfolios of a namespace.
PORTFOLIOS = "/apis/edgefolio.dev/v1alpha1/namespaces/{namespace}/modelportfolios"
#: Path of all of them.
ALL_PORTFOLIOS = "/apis/edgefolio.dev/v1alpha1/modelportfolios"
#: A lease that was not renewed for this long has no holder.
LEASE_SECONDS = 30.0
_REQUEST_SECONDS = 20.0


def client() -> SyncClient:
    """The API server, entered as the pod's service account."""
    account = Path(os.environ.get("SERVICE_ACCOUNT", SERVICE_ACCOUNT))
    return SyncClient(Access.found(account=account), timeout=_REQUEST_SECONDS)


def holder_of_lease(api: SyncClient, *, namespace: str) -> str | None:
    """Who acts as operator there."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/edgefolio-operator"
    try:
        spec = api.request("GET", path)["spec"]
    except ApiRefused as error:
        if error.status != 404:
            raise
        return None
    renewed = datetime.fromisoformat(spec["renewTime"])
    age = (datetime.now(tz=UTC) - renewed).total_seconds()
    holder: str | None = spec.get("holderIdentity")
    return holder if holder and age < LEASE_SECONDS else None


def say(text: str) -> None:
    """Print one line of the log."""
    print(f"{datetime.now(tz=UTC):%H:%M:%S} {text}", flush=True)
