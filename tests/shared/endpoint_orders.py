"""The ModelEndpoint that an agent's watcher follows."""

from __future__ import annotations

from typing import Any

ENDPOINTS = "/apis/edgefolio.dev/v1alpha1/namespaces/models/modelendpoints"


def endpoint_spec(variant: str, *, autonomy_after_seconds: int) -> dict[str, Any]:
    """An order to serve ``variant``; an agent that is cut off for so long decides alone."""
    return {
        "portfolioRef": {"name": "digits"},
        "podName": "digits-1",
        "nodeName": "edge-1",
        "modelName": "digits",
        "repositoryURI": "s3://bucket/digits",
        "revision": {"number": 1, "manifestDigest": "0" * 64},
        "targetVariant": variant,
        "switching": {"autonomyAfterSeconds": autonomy_after_seconds},
    }
