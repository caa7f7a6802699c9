"""What runs before the release is uninstalled: the operator ends, and its finalizers are taken off every portfolio.

A portfolio with ``reclaimPolicy: Delete`` waits, when it is deleted, for the operator to delete what it published. With
the operator gone it would wait for ever, and its namespace with it. What was published stays then.
"""

from __future__ import annotations

import os
import sys
import time

from cluster_api import ALL_PORTFOLIOS, PORTFOLIOS, client, holder_of_lease, say

from edgefolio.kubernetes.sync_client import ApiRefused, Object, SyncClient

PREFIX = "edgefolio.dev/"
STOP_SECONDS = 90.0
ATTEMPTS = 5
MERGE = "application/merge-patch+json"


def stop_operator(api: SyncClient, *, namespace: str, deployment: str) -> None:
    """Stop it, or it would put back what is taken off."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}/scale"
    try:
        api.request("PATCH", path, {"spec": {"replicas": 0}}, content_type=MERGE)
    except ApiRefused as error:
        if error.status != 404:
            raise
    end = time.monotonic() + STOP_SECONDS
    while (holder := holder_of_lease(api, namespace=namespace)) is not None:
        if time.monotonic() > end:
            say(f"{holder} still acts; going on")
            return
        time.sleep(1)
    say("no operator acts any more")


def release(api: SyncClient, path: str) -> int:
    """Take our finalizers off the portfolios at ``path``; how many had one."""
    try:
        portfolios = api.request("GET", path)["items"]
    except ApiRefused as error:
        if error.status != 404:
            raise
        return 0  # the definitions are gone, and the portfolios with them
    held = [portfolio for portfolio in portfolios if len(_others(portfolio)) < len(_finalizers(portfolio))]
    for portfolio in held:
        _release_one(api, portfolio)
    return len(held)


def _release_one(api: SyncClient, portfolio: Object) -> None:
    metadata = portfolio["metadata"]
    path = f"{PORTFOLIOS.format(namespace=metadata['namespace'])}/{metadata['name']}"
    for _ in range(ATTEMPTS):
        # With its version: what others put on meanwhile is not taken off.
        change = {"finalizers": _others(portfolio), "resourceVersion": portfolio["metadata"]["resourceVersion"]}
        try:
            api.request("PATCH", path, {"metadata": change}, content_type=MERGE)
            say(f"{metadata['namespace']}/{metadata['name']} is released; what it published stays")
            return
        except ApiRefused as error:
            if error.status == 404:
                return
            if error.status != 409:
                raise
        portfolio = api.request("GET", path)
    raise TimeoutError(f"{metadata['namespace']}/{metadata['name']} changes all the time")


def _finalizers(portfolio: Object) -> list[str]:
    return list(portfolio["metadata"].get("finalizers") or ())


def _others(portfolio: Object) -> list[str]:
    return [name for name in _finalizers(portfolio) if not name.startswith(PREFIX)]


def main() -> int:
    """Run it; the exit code."""
    api = client()
    namespaces = [name for name in os.environ.get("NAMESPACES", "").split(",") if name]
    try:
        stop_operator(api, namespace=os.environ["OPERATOR_NAMESPACE"], deployment=os.environ["OPERATOR_DEPLOYMENT"])
        paths = [PORTFOLIOS.format(namespace=name) for name in namespaces] or [ALL_PORTFOLIOS]
        count = sum(release(api, path) for path in paths)
    except (ApiRefused, OSError) as error:
        say(f"FAILED: {error}")
        return 1
    say(f"{count} portfolios released")
    return 0


if __name__ == "__main__":
    sys.exit(main())
