"""Every name that the operator gives or reads: labels, annotations, finalizer, objects."""

from __future__ import annotations

from edgefolio.specification import annotations
from edgefolio.specification.resource import API_VERSION

GROUP, VERSION = API_VERSION.split("/")

MANAGER = "edgefolio-operator"
"""Field manager of everything the operator writes."""

FINALIZER = f"{GROUP}/repository"
"""On a ModelPortfolio with ``reclaimPolicy: Delete`` alone: its revisions are deleted before it goes."""

# Labels of what the operator makes.
PORTFOLIO_LABEL = f"{GROUP}/portfolio"
ENDPOINT_LABEL = f"{GROUP}/endpoint"
"""On every pod that carries the agent, whoever made it; the operator sees no other pods."""
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

# Annotations that the operator writes.
HASH_ANNOTATION = f"{GROUP}/specification-hash"
REQUEST_ANNOTATION = f"{GROUP}/make-request"

# Annotations that users write.
MAKE_REQUESTED_ANNOTATION = annotations.MAKE_REQUESTED
PIN_VARIANT_ANNOTATION = annotations.PIN_VARIANT
PAUSED_ANNOTATION = annotations.PAUSED
OBJECTIVE_PREFIX = annotations.OBJECTIVE_PREFIX

JOB_COMPONENT = "pruner"
ENDPOINT_COMPONENT = "endpoint"


def labels(portfolio: str, *, component: str) -> dict[str, str]:
    """Labels of an object that belongs to ``portfolio``."""
    return {
        "app.kubernetes.io/name": "edgefolio",
        "app.kubernetes.io/instance": portfolio,
        COMPONENT_LABEL: component,
        MANAGED_BY_LABEL: MANAGER,
        PORTFOLIO_LABEL: portfolio,
    }


def job_name(portfolio: str, key: str) -> str:
    """Name of the Job that makes what ``key`` (hexadecimal) stands for; at most 62 letters."""
    return f"{portfolio}-make-{key[:8]}"
