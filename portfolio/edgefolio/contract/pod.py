"""The pod contract: every name that the operator writes into a pod and a program in that pod reads.

Pods outlive upgrades of the operator, so that a name that changes here must be read under its old form, too.
"""

from __future__ import annotations

import posixpath
import re

# Containers
AGENT_CONTAINER = "agent"
TRITON_CONTAINER = "triton"
KEY_CONTAINER = "key"
#: Init container that ends when there is something to serve: Triton starts after it.
WAIT_CONTAINER = "wait"
#: The only container of every Job.
JOB_CONTAINER = "pruner"

# Volumes, and where they are mounted
KEY_VOLUME, KEY_MOUNT = "key", "/run/edgefolio"
HEALTH_VOLUME, HEALTH_MOUNT = "health", "/run/edgefolio-health"
MODELS_VOLUME, MODELS_MOUNT = "models", "/models"
STATE_VOLUME, STATE_MOUNT = "state", "/state"
WORK_VOLUME, WORK_MOUNT = "work", "/work"
SPECIFICATION_VOLUME, SPECIFICATION_MOUNT = "specification", "/etc/edgefolio"
#: Also the home directory: the root file system is read-only.
TEMPORARY_VOLUME, TEMPORARY_MOUNT = "temporary", "/tmp"
TRITON_TEMPORARY_VOLUME = "triton-temporary"
SHARED_MEMORY_VOLUME, SHARED_MEMORY_MOUNT = "shared-memory", "/dev/shm"
TOKEN_VOLUME, TOKEN_MOUNT = "token", "/var/run/secrets/kubernetes.io/serviceaccount"
#: Credentials of the object store, one file a key. Read anew when it changes, unlike variables.
CREDENTIALS_VOLUME, CREDENTIALS_MOUNT = "credentials", "/run/edgefolio-credentials"
#: The claim of an endpoint's repository.
REPOSITORY_VOLUME = "repository"
#: Claims that ``pvc://`` URIs name are mounted below it, each at its own name.
CLAIMS_MOUNT = "/claims"

# Files in them
#: ``name=secret`` for Triton's restricted interfaces; the agent alone can read it besides Triton.
KEY_FILE = f"{KEY_MOUNT}/key"
#: The ModelPortfolio that a Job reads; also its key in the ConfigMap.
SPECIFICATION_FILE = "portfolio.json"

# Health files: the agent writes them, probes of Triton's and its own container look for them. They lie in memory: they
# outlive both containers, but not the node.
#: The last inference was verified, and none has failed since: Triton's readiness probe passes.
SERVING = "serving"
#: Only a restart helps: Triton's liveness probe fails.
RESTART = "restart"
#: File that exists once a verified variant is on disk: the container that waits for it ends.
SYNCED = "synced"

# Ports, by their names in the pod
HTTP_PORT_NAME, HTTP_PORT = "http", 8000
GRPC_PORT_NAME, GRPC_PORT = "grpc", 8001
METRICS_PORT_NAME, METRICS_PORT = "metrics", 8002
AGENT_METRICS_PORT_NAME, AGENT_METRICS_PORT = "agent-metrics", 9002

# Environment of the agent
#: Its own pod, whose ModelEndpoint it obeys.
POD_NAME = "POD_NAME"
POD_NAMESPACE = "POD_NAMESPACE"
#: Triton's model repository, shared with it.
MODELS_VARIABLE = "EDGEFOLIO_MODELS"
#: The agent's own directory: orders, history, manifests.
STATE_VARIABLE = "EDGEFOLIO_STATE"
#: Where probes look for health files; absent: none are written.
HEALTH_VARIABLE = "EDGEFOLIO_HEALTH"
#: Where claims are mounted, if not at :data:`CLAIMS_MOUNT`.
CLAIMS_VARIABLE = "EDGEFOLIO_CLAIMS"
#: Addresses of Triton's gRPC service and of its metrics.
TRITON_VARIABLE = "EDGEFOLIO_TRITON"
TRITON_METRICS_VARIABLE = "EDGEFOLIO_TRITON_METRICS"
#: Directory of the object store's credentials, :data:`CREDENTIALS_MOUNT`.
CREDENTIALS_VARIABLE = "EDGEFOLIO_CREDENTIALS"
#: Path of :data:`KEY_FILE`.
KEY_FILE_VARIABLE = "EDGEFOLIO_KEY_FILE"
#: Threads of one model instance.
THREADS_VARIABLE = "EDGEFOLIO_THREADS"
#: Memory that Triton may take, in bytes.
MEMORY_LIMIT_VARIABLE = "EDGEFOLIO_MEMORY_LIMIT"
#: Size limit of Triton's shared memory, in bytes.
SHARED_MEMORY_VARIABLE = "EDGEFOLIO_SHARED_MEMORY"
#: Size limit of the model repository, in bytes.
STORAGE_LIMIT_VARIABLE = "EDGEFOLIO_STORAGE_LIMIT"
#: Largest rate of downloads.
BYTES_PER_SECOND_VARIABLE = "EDGEFOLIO_BYTES_PER_SECOND"
#: Port of the agent's own metrics; 0: any free one.
METRICS_PORT_VARIABLE = "EDGEFOLIO_METRICS_PORT"

# Environment of Jobs
#: Identifies one pruning run over all its pods.
MAKING_VARIABLE = "EDGEFOLIO_MAKING"
#: Number of the pod in an Indexed Job; Kubernetes sets it.
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
#: Where Kubernetes reads a termination message; the variable is for runs outside a pod.
TERMINATION_MESSAGE = "/dev/termination-log"
TERMINATION_MESSAGE_VARIABLE = "EDGEFOLIO_TERMINATION_MESSAGE"

_CLAIM_URI = re.compile(r"^pvc://([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(/.*)?$")


def claim_volume(number: int) -> str:
    """Name of the volume of a Job's claim."""
    return f"claim-{number}"


def claim_mount(claim: str) -> str:
    """Where the claim is mounted."""
    return f"{CLAIMS_MOUNT}/{claim}"


def claim_of(uri: str) -> str | None:
    """Name of the claim in a ``pvc://claim/path`` URI; ``None`` for any other URI."""
    match = _CLAIM_URI.match(uri)
    return None if match is None else match[1]


def path_in_pod(uri: str, *, claims: str = CLAIMS_MOUNT) -> str:
    """A ``pvc://claim/path`` URI as the path below ``claims`` in the pod; any other URI unchanged.

    A path never leaves its claim: ``..`` ends at its root, in an object from before the definition refused it.
    """
    match = _CLAIM_URI.match(uri)
    if match is None:
        return uri
    path = match[3] or ""
    if ".." in path.split("/"):
        path = posixpath.normpath(path)
    return f"{claims}/{match[1]}{path}"
