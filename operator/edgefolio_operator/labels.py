"""Labels, annotations, finalizer, and names of objects."""

from __future__ import annotations

import hashlib

from edgefolio.specification import annotations as of_users
from edgefolio.specification.resource import API_VERSION

GROUP, VERSION = API_VERSION.split("/")

MANAGER = "edgefolio-operator"
"""Field manager of everything the operator writes."""

FINALIZER = f"{GROUP}/repository"
"""On a ModelPortfolio with ``reclaimPolicy: Delete`` alone: its revisions are deleted before it goes."""

# Labels of the operator's objects.
PORTFOLIO_LABEL = f"{GROUP}/portfolio"
ENDPOINT_LABEL = f"{GROUP}/endpoint"
"""On every pod that carries the agent, whoever made it; the operator sees no other pods."""
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

# Annotations that the operator writes.
#: On a DaemonSet that serves HTTP because it did before there was a choice.
HTTP_INHERITED_ANNOTATION = f"{GROUP}/http-inherited"
HASH_ANNOTATION = f"{GROUP}/specification-hash"
APPLIED_ANNOTATION = f"{GROUP}/applied-spec"
"""On a DaemonSet: its spec as it was applied, to set right what somebody changes. Another version of the operator would
write other pods, and that alone must not restart them."""
REQUEST_ANNOTATION = f"{GROUP}/make-request"
PIECES_ANNOTATION = f"{GROUP}/pieces"
"""On a Job whose pods make pieces of a revision: the number of pieces."""

# Annotations that users write.
MAKE_REQUESTED_ANNOTATION = of_users.MAKE_REQUESTED
ROLLOUT_REQUESTED_ANNOTATION = of_users.ROLLOUT_REQUESTED
APPROVE_REVISION_ANNOTATION = of_users.APPROVE_REVISION
PIN_VARIANT_ANNOTATION = of_users.PIN_VARIANT
PAUSED_ANNOTATION = of_users.PAUSED
OBJECTIVE_PREFIX = of_users.OBJECTIVE_PREFIX

# Components of Jobs: make a revision, check what others published, delete what was published, measure it elsewhere.
JOB_COMPONENT = "pruner"
CHECK_COMPONENT = "check"
RECLAIM_COMPONENT = "reclaim"
PROFILE_COMPONENT = "profile"
ENDPOINT_COMPONENT = "endpoint"

AGENT_ACCOUNT = "edgefolio-agent"
"""Service account of the agents in each namespace, and the ClusterRole that it is given."""


def object_labels(portfolio: str, *, component: str) -> dict[str, str]:
    """Labels of an object that belongs to ``portfolio``."""
    return {
        "app.kubernetes.io/name": "edgefolio",
        "app.kubernetes.io/instance": portfolio,
        COMPONENT_LABEL: component,
        MANAGED_BY_LABEL: MANAGER,
        PORTFOLIO_LABEL: portfolio,
    }


def job_name(portfolio: str, key: str) -> str:
    """Name of the Job of the pruning run ``key`` (hexadecimal); at most 62 letters."""
    return f"{portfolio}-make-{key[:8]}"


def pieces_job_name(portfolio: str, key: str) -> str:
    """Name of the Indexed Job of its pieces; host names of its pods are 3 letters longer, and may have 63."""
    digest = hashlib.sha256(f"{portfolio}/{key}".encode()).hexdigest()
    return f"{portfolio[:38]}-pieces-{digest[:10]}"


def check_job_name(portfolio: str, look: str) -> str:
    """Name of the Job of one check of the repository; at most 63 letters."""
    return f"{portfolio}-check-{hashlib.sha256(look.encode()).hexdigest()[:8]}"


def reclaim_job_name(portfolio: str) -> str:
    """Name of the Job that deletes what was published."""
    return f"{portfolio}-reclaim"


def profile_job_name(portfolio: str, measurement: str) -> str:
    """Name of the Job of one measurement; at most 63 letters."""
    return f"{portfolio[:45]}-profile-{hashlib.sha256(f'{portfolio} {measurement}'.encode()).hexdigest()[:8]}"
