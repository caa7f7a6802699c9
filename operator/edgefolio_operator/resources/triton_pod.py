"""The pod that serves: a random key, the agent as a native sidecar, and Triton.

The pod is restricted: not as root, read-only root file systems, no capabilities. An init container writes a random key
into memory; Triton is started with its control interfaces closed to everyone who does not send it, and only the agent
can read it as well. Clients reach inference alone.

How Triton is, is told by files that the agent writes after inferences (see ``docs/decisions/health-is-a-file.md``): an
agent that is dead, or in a loop of crashes, changes nothing for a Triton that serves.
"""

from __future__ import annotations

from typing import Any

from edgefolio.contract import health_files
from edgefolio.specification.base import bytes_of
from edgefolio.specification.cluster import ManagedServing, Resources
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.resources.pruning_job import (
    CLAIMS,
    Images,
    container_security,
    pod_placement,
    pod_security,
    repository_claim,
    resources,
)

Object = dict[str, Any]

SERVICE_ACCOUNT = "edgefolio-agent"
HTTP_PORT, GRPC_PORT, METRICS_PORT, AGENT_METRICS_PORT = 8000, 8001, 8002, 9002

KEY = "/run/edgefolio"
HEALTH = "/run/edgefolio-health"
MODELS = "/models"
STATE = "/state"

#: A client's gRPC connection ends after this long and begins anew at the nearest Triton. Without it clients keep one
#: for hours: they would stay with a Triton that is about to end, and never come back to their own node's.
CONNECTION_SECONDS = 15
#: So long a pod goes on serving after it was told to end: until all connections have ended (they vary by a tenth).
DRAIN_SECONDS = 20
#: So long Triton may take to answer what it has begun.
EXIT_SECONDS = 20
#: The agent ends after Triton, in what is left.
GRACE_SECONDS = DRAIN_SECONDS + EXIT_SECONDS + 10
#: A making takes hours, and a variant must be there before Triton starts: the agent is not killed while it waits.
_A_MONTH = 30 * 86_400
#: A Triton that answers no inference any more has nothing to end.
_HUNG_SECONDS = 5
#: Under contention a probe is slow, and a slow probe says nothing of Triton.
_PROBE_SECONDS = 30
#: What no limit or request says: about what the agent takes when idle.
_AGENT_REQUESTS = {"cpu": "25m", "memory": "128Mi"}

_RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
#: Run at the start of Triton's container: what was said of the server before says nothing of this one.
FORGET_HEALTH = f"rm -f {HEALTH}/{health_files.SERVING} {HEALTH}/{health_files.RESTART}"
# A server that was killed left its shared memory behind, on a volume that outlives it.
_TRITON = f"""\
{FORGET_HEALTH}
rm -rf /dev/shm/*
key="$(cat {KEY}/key)"
exec tritonserver --model-repository={MODELS} --model-control-mode=explicit --disable-auto-complete-config \\
  --strict-readiness=false --exit-timeout-secs={EXIT_SECONDS} --allow-gpu-metrics=false \\
  --http-port={HTTP_PORT} --grpc-port={GRPC_PORT} --metrics-port={METRICS_PORT} \\
  --grpc-restricted-protocol="{_RESTRICTED}:$key" --http-restricted-api="{_RESTRICTED}:$key" \\
  --grpc-max-connection-age={1000 * CONNECTION_SECONDS} \\
  --metrics-config summary_latencies=true --metrics-config summary_quantiles=0.5:0.05,0.95:0.005
"""
# A key file of another run must not outlive its Triton: the volume lives as long as the pod, so the key does, too.
_MAKE_KEY = (
    f"umask 077; [ -s {KEY}/key ] || echo edgefolio-key=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \\n')"
    f" > {KEY}/key"
)
# A pod is not ready while a sidecar is down, and clients would lose a Triton that serves. So an agent that ends is
# started again inside its container. Before its first sync it serves nobody: then the kubelet shall see it end.
_AGENT = f"""\
agent= pause=1
trap '[ -z "$agent" ] || kill -TERM "$agent"; wait; exit 0' TERM INT
while :; do
  began=$(date +%s)
  python3 -m edgefolio_edge.cluster & agent=$!
  wait "$agent"; code=$?
  [ -e {HEALTH}/{health_files.SYNCED} ] || exit "$code"
  [ $(($(date +%s) - began)) -lt 60 ] || pause=1
  echo "{{\\"event\\": \\"ended\\", \\"message\\": \\"The agent ended with $code; again in $pause s.\\"}}"
  sleep "$pause" & agent=$!
  wait "$agent"
  [ "$pause" -ge 30 ] || pause=$((2 * pause))
done
"""


def build_pod(portfolio: ModelPortfolio, *, images: Images) -> Object:
    """The specification of a pod that serves ``portfolio``."""
    managed, secret = portfolio.spec.serving.managed, portfolio.spec.repository.secret_ref
    triton_image = managed.image or images.triton
    agent = agent_container(
        managed,
        image=managed.agent_image or images.agent,
        threads=portfolio.spec.serving.threads,
        secret=secret.name if secret is not None else None,
    )
    claim = repository_claim(portfolio.spec)
    repository: list[Object] = []
    if claim is not None:
        agent["volumeMounts"].append({"name": "repository", "mountPath": f"{CLAIMS}/{claim}", "readOnly": True})
        repository.append({"name": "repository", "persistentVolumeClaim": {"claimName": claim}})
    return {
        "serviceAccountName": SERVICE_ACCOUNT,
        # Triton has no business with the API: the token is mounted into the agent alone.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        **pod_placement(managed),
        # The key is made in Triton's image: so that is pulled before and while the first revision is made, not after.
        "initContainers": [key_container(managed, image=triton_image), agent],
        "containers": [_triton(managed, triton_image)],
        "volumes": [
            *volumes(managed),
            *repository,
            {"name": "triton-temporary", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ],
    }


def key_container(settings: ManagedServing, *, image: str) -> Object:
    """Writes the key before anything else starts."""
    return {
        "name": "key",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/bin/sh", "-ec", _MAKE_KEY],
        "resources": _agent_resources(settings.agent_resources),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "key", "mountPath": KEY}],
    }


def agent_container(settings: ManagedServing, *, image: str, threads: int = 1, secret: str | None = None) -> Object:
    """A native sidecar: Triton is started when a variant is on disk, and stopped before the agent is."""
    container: Object = {
        "name": "agent",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", _AGENT],
        "env": _environment(settings, threads=threads),
        "ports": [{"name": "agent-metrics", "containerPort": AGENT_METRICS_PORT}],
        "resources": _agent_resources(settings.agent_resources),
        "securityContext": container_security(),
        "startupProbe": {
            **_looks(f"[ -e {HEALTH}/{health_files.SYNCED} ]"),
            "periodSeconds": 2,
            "failureThreshold": _A_MONTH // 2,
        },
        "volumeMounts": [
            {"name": "key", "mountPath": KEY, "readOnly": True},
            {"name": "health", "mountPath": HEALTH},
            {"name": "models", "mountPath": MODELS},
            {"name": "state", "mountPath": STATE},
            {"name": "temporary", "mountPath": "/tmp"},
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
        ],
    }
    if secret is not None:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    return container


def triton_health() -> Object:
    """Probes and end of Triton's container, whoever wrote the rest of it."""
    return {
        "startupProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        "livenessProbe": {
            **_looks(f"[ ! -e {HEALTH}/{health_files.RESTART} ]"),
            "periodSeconds": 5,
            "failureThreshold": 2,
            # It serves nobody any more: there is nothing to wait for.
            "terminationGracePeriodSeconds": _HUNG_SECONDS,
        },
        "readinessProbe": {
            **_looks(f"[ -e {HEALTH}/{health_files.SERVING} ]"),
            "periodSeconds": 2,
            "failureThreshold": 2,
        },
        # New connections are reset as soon as Triton is told to end: clients must have gone elsewhere before.
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
    }


def triton_mounts() -> list[Object]:
    """What Triton sees of the volumes that it shares with the agent."""
    return [
        {"name": "key", "mountPath": KEY, "readOnly": True},
        {"name": "health", "mountPath": HEALTH},
        {"name": "models", "mountPath": MODELS, "readOnly": True},
    ]


def service_ports() -> list[Object]:
    """The ports that clients use, by the names that Triton's container gives them."""
    return [
        {"name": "http", "port": HTTP_PORT, "targetPort": "http"},
        {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
    ]


def volumes(settings: ManagedServing) -> list[Object]:
    """The volumes of agent and Triton. All of them live as long as the pod, restarts of its containers included."""
    return [
        {"name": "key", "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}},
        {"name": "health", "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}},
        {"name": "models", "emptyDir": {"sizeLimit": settings.storage.size_limit}},
        {"name": "state", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "temporary", "emptyDir": {}},
        {
            "name": "token",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                ]
            },
        },
    ]


def _triton(settings: ManagedServing, image: str) -> Object:
    return {
        "name": "triton",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/bin/sh", "-ec", _TRITON],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": resources(settings.resources),
        "securityContext": container_security(),
        **triton_health(),
        "volumeMounts": [
            *triton_mounts(),
            {"name": "triton-temporary", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }


def _environment(settings: ManagedServing, *, threads: int) -> list[Object]:
    limit, storage = settings.resources.limits.get("memory"), settings.storage
    values: dict[str, str | None] = {
        "EDGEFOLIO_MODELS": MODELS,
        "EDGEFOLIO_STATE": STATE,
        "EDGEFOLIO_HEALTH": HEALTH,
        "EDGEFOLIO_KEY_FILE": f"{KEY}/key",
        "EDGEFOLIO_METRICS_PORT": str(AGENT_METRICS_PORT),
        "EDGEFOLIO_THREADS": str(threads),
        "EDGEFOLIO_MEMORY_LIMIT": None if limit is None else str(bytes_of(limit)),
        "EDGEFOLIO_STORAGE_LIMIT": str(bytes_of(storage.size_limit)),
        "EDGEFOLIO_BYTES_PER_SECOND": None
        if storage.max_bytes_per_second is None
        else str(storage.max_bytes_per_second),
        "HOME": "/tmp",
    }
    return [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        *({"name": name, "value": value} for name, value in values.items() if value is not None),
    ]


def _agent_resources(settings: Resources) -> Object:
    return {**resources(settings), "requests": {**_AGENT_REQUESTS, **settings.limits, **settings.requests}}


def _looks(condition: str) -> Object:
    return {"exec": {"command": ["/bin/sh", "-c", condition]}, "timeoutSeconds": _PROBE_SECONDS}
