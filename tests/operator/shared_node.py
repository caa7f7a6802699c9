"""A node that several endpoints of one portfolio share: its revision, their orders and what they report."""

from __future__ import annotations

from typing import Any

from played_reports import played_variant

from edgefolio.specification.conditions import time_text
from edgefolio.specification.endpoint import (
    EndpointSpecification,
    EndpointStatus,
    PortfolioReference,
    RevisionReference,
)
from edgefolio.specification.portfolio_status import RevisionStatus, VariantStatus
from edgefolio_operator.endpoints.endpoint import Endpoint, Surroundings

NOW = 1_800_000_000.0
MEBIBYTE = 2**20


def variant(name: str, rank: int, milliseconds: float, mebibytes: int) -> VariantStatus:
    peak = mebibytes * MEBIBYTE
    return played_variant(name, rank, milliseconds, memory_peak_bytes=peak, memory_steady_bytes=peak * 3 // 4)


VARIANTS = (variant("small", 1, 2.0, 40), variant("mid", 2, 5.0, 80), variant("dense", 3, 10.0, 120))
REVISION = RevisionStatus(number=1, manifest_digest="1" * 64, published_time=time_text(NOW), variants=VARIANTS)


def spec(target: str | None = "dense", node: str = "edge-1", name: str = "pod-a") -> EndpointSpecification:
    return EndpointSpecification(
        portfolio_ref=PortfolioReference(name="digits"),
        pod_name=name,
        node_name=node,
        model_name="digits",
        repository_uri="s3://bucket/portfolios",
        revision=RevisionReference(number=1, manifest_digest="1" * 64),
        target_variant=target,
    )


def serving(name: str | None, **fields: Any) -> EndpointStatus:
    return EndpointStatus(active_variant=name, active_revision=1 if name else None, **fields)


def endpoint(name: str, told: EndpointSpecification | None, status: EndpointStatus) -> Endpoint:
    pod = {"metadata": {"name": name, "annotations": {}}, "spec": {"nodeName": "edge-1"}, "status": {}}
    node = {"metadata": {"name": "edge-1"}, "status": {"allocatable": {"cpu": "4", "memory": "100Gi"}}}
    return Endpoint(surroundings=Surroundings(pod=pod, node=node), spec=told, status=status)
