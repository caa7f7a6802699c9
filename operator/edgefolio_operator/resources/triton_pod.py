"""Builder of the serving pod: a random key, the agent as a native sidecar, and Triton once there is a variant.

The pod is restricted: not as root, read-only root file systems, no capabilities. An init container writes a random key
into memory; Triton is started with its control interfaces closed to everyone who does not send it, and only the agent
can read it as well. Clients reach inference alone.

Probes of Triton look for files that the agent writes after inferences (see ``docs/decisions/health-is-a-file.md``): an
agent that is dead or in a crash loop does not affect a Triton that serves.
"""

from __future__ import annotations

import importlib.resources
import math

from edgefolio.contract import pod
from edgefolio.specification.cluster import ManagedServing, Resources
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.specification.validation.base import bytes_of, quantity
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document
from edgefolio_operator.resources.pruning_job import (
    Images,
    container_security,
    pod_placement,
    pod_security,
    repository_claim,
    resources,
)
from edgefolio_operator.resources.serving_volumes import (
    credentials_volume,
    shared_memory_bytes_of,
    triton_volumes,
    volumes,
)

SERVICE_ACCOUNT = labels.AGENT_ACCOUNT

#: A client's gRPC connection ends after this long and begins anew at the nearest Triton. Without it clients keep one
#: for hours: they would stay with a Triton that is about to end, and never come back to their own node's.
CONNECTION_SECONDS = 15
#: A terminating pod goes on serving this long, until all connections have ended (their age varies by a tenth).
DRAIN_SECONDS = 20
#: It serves so much longer while clients are connected all the same, or wait for an answer.
LATE_SECONDS = 20
#: The agent ends after Triton, in the remaining time.
GRACE_SECONDS = DRAIN_SECONDS + LATE_SECONDS + 10
#: A dead Triton has no requests to finish.
_HUNG_SECONDS = 5
#: Generous: under contention the probe is slow although Triton is healthy.
_PROBE_SECONDS = 30
#: Default requests of the agent: about its idle usage.
_AGENT_REQUESTS = {"cpu": "25m", "memory": "128Mi"}
#: Default memory limit of the agent: several times what it was seen to take.
_AGENT_MEMORY = "512Mi"

_RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
#: Run at the start of Triton's container: the files of the server before are stale.
FORGET_HEALTH = f"rm -f {pod.HEALTH_MOUNT}/{pod.SERVING} {pod.HEALTH_MOUNT}/{pod.RESTART}"
# A killed server leaves its shared memory on a volume that outlives it. The shell ends when it is told to, and its
# container with it: the drain is over then, and a Triton that is told to end unloads its model before it closes its
# connections, so that whoever is still connected is refused for seconds (two without load; up to 30 were seen). It ends
# in a moment in which no thread computes, and so no request is under way. Two looks: on its way between two processes a
# request is seen in neither.
_TRITON = f"""\
{FORGET_HEALTH}
rm -rf {pod.SHARED_MEMORY_MOUNT}/*
key="$(cat {pod.KEY_FILE})"
is_calm() {{
  for file in /proc/[0-9]*/task/[0-9]*/stat; do
    case "$file" in /proc/$$/*) continue ;; esac
    read -r line 2>/dev/null <"$file" || continue
    case "$line" in *") R "*) return 1 ;; esac
  done
}}
end() {{
  looks=0
  until {{ is_calm && sleep 0.01 && is_calm; }} || [ "$looks" -ge 100 ]; do
    sleep 0.01
    looks=$((looks + 1))
  done
  exit 143
}}
trap end TERM
tritonserver --model-repository={pod.MODELS_MOUNT} --model-control-mode=explicit --disable-auto-complete-config \\
  --strict-readiness=false --allow-gpu-metrics=false \\
  --grpc-port={pod.GRPC_PORT} --metrics-port={pod.METRICS_PORT} \\
  --grpc-restricted-protocol="{_RESTRICTED}:$key" @HTTP@ \\
  --grpc-max-connection-age={1000 * CONNECTION_SECONDS} \\
  --metrics-config summary_latencies=true --metrics-config summary_quantiles=0.5:0.05,0.95:0.005 &
wait $!
"""
_HTTP = f'--http-port={pod.HTTP_PORT} --http-restricted-api="{_RESTRICTED}:$key"'
_NO_HTTP = "--allow-http=false"
# A key file of another run must not outlive its Triton: the volume lives as long as the pod, so the key does, too.
_MAKE_KEY = (
    f"umask 077; [ -s {pod.KEY_FILE} ] || echo edgefolio-key=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \\n')"
    f" > {pod.KEY_FILE}"
)
# Not a startup probe of the agent: beside a sidecar that has one, Kubernetes 1.35.0 to 1.35.3 never starts a container
# again once the kubelet was restarted (kubernetes/kubernetes, pull request 137146).
_WAIT = f"trap 'exit 143' TERM; until [ -e {pod.HEALTH_MOUNT}/{pod.SYNCED} ]; do sleep 0.5; done"


def _script(name: str, **values: object) -> str:
    """A shell script of this folder, without its comments: a new word there restarts no Triton."""
    text = importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


_AGENT = _script("supervisor.sh", SYNCED=f"{pod.HEALTH_MOUNT}/{pod.SYNCED}")
_DRAIN = _script(
    "drain.sh",
    RESTART=f"{pod.HEALTH_MOUNT}/{pod.RESTART}",
    DRAIN=DRAIN_SECONDS,
    LATE=LATE_SECONDS,
    GRPC=f"{pod.GRPC_PORT:04X}",
    HTTP=f"{pod.HTTP_PORT:04X}",
)


def build_pod(portfolio: ModelPortfolio, *, images: Images, http: bool) -> Document:
    """The specification of a pod that serves ``portfolio``, over gRPC and with ``http`` over HTTP as well."""
    managed, secret = portfolio.spec.serving.managed, portfolio.spec.repository.reading_secret
    triton_image = managed.image or images.triton
    agent = agent_container(managed, image=managed.agent_image or images.agent, threads=portfolio.spec.serving.threads)
    agent["env"].append({"name": pod.SHARED_MEMORY_VARIABLE, "value": str(shared_memory_bytes_of(managed))})
    repository: list[Document] = []
    if secret is not None:
        agent["env"].append({"name": pod.CREDENTIALS_VARIABLE, "value": pod.CREDENTIALS_MOUNT})
        agent["volumeMounts"].append(
            {"name": pod.CREDENTIALS_VOLUME, "mountPath": pod.CREDENTIALS_MOUNT, "readOnly": True}
        )
        repository.append(credentials_volume(secret))
        # Agents of 0.1, which a portfolio may name, know only variables.
        agent["envFrom"] = [{"secretRef": {"name": secret.name, "optional": True}}]
    claim = repository_claim(portfolio.spec)
    if claim is not None:
        agent["volumeMounts"].append(
            {"name": pod.REPOSITORY_VOLUME, "mountPath": pod.claim_mount(claim), "readOnly": True}
        )
        repository.append({"name": pod.REPOSITORY_VOLUME, "persistentVolumeClaim": {"claimName": claim}})
    return {
        "serviceAccountName": SERVICE_ACCOUNT,
        # Triton needs no API access: the token is mounted into the agent alone.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Triton's command line holds the key: the containers of the pod do not see each other's processes.
        "shareProcessNamespace": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        **pod_placement(managed),
        # In Triton's image, which is thus pulled while the first revision is made, not after.
        "initContainers": [
            key_container(managed, image=triton_image),
            agent,
            wait_container(managed, image=triton_image),
        ],
        "containers": [_triton(managed, triton_image, http=http)],
        "volumes": [
            *volumes(managed),
            *repository,
            *triton_volumes(managed),
        ],
    }


def key_container(settings: ManagedServing, *, image: str) -> Document:
    """The init container that writes the key."""
    return {
        "name": pod.KEY_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/bin/sh", "-ec", _MAKE_KEY],
        "resources": _agent_resources(settings.agent_resources),
        "securityContext": container_security(),
        "volumeMounts": [{"name": pod.KEY_VOLUME, "mountPath": pod.KEY_MOUNT}],
    }


def wait_container(settings: ManagedServing, *, image: str) -> Document:
    """The init container, after the agent, that ends when a variant is on disk: Triton starts with something to serve.

    The first pruning run takes hours.
    """
    return {
        "name": pod.WAIT_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/bin/sh", "-c", _WAIT],
        "resources": _agent_resources(settings.agent_resources),
        "securityContext": container_security(),
        "volumeMounts": [{"name": pod.HEALTH_VOLUME, "mountPath": pod.HEALTH_MOUNT, "readOnly": True}],
    }


def agent_container(settings: ManagedServing, *, image: str, threads: int = 1) -> Document:
    """The agent as a native sidecar: it stops after Triton does."""
    return {
        "name": pod.AGENT_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["/bin/sh", "-c", _AGENT],
        "env": _environment(settings, threads=threads),
        "ports": [{"name": pod.AGENT_METRICS_PORT_NAME, "containerPort": pod.AGENT_METRICS_PORT}],
        "resources": _agent_resources(settings.agent_resources),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": pod.KEY_VOLUME, "mountPath": pod.KEY_MOUNT, "readOnly": True},
            {"name": pod.HEALTH_VOLUME, "mountPath": pod.HEALTH_MOUNT},
            {"name": pod.MODELS_VOLUME, "mountPath": pod.MODELS_MOUNT},
            {"name": pod.STATE_VOLUME, "mountPath": pod.STATE_MOUNT},
            {"name": pod.TEMPORARY_VOLUME, "mountPath": pod.TEMPORARY_MOUNT},
            {"name": pod.TOKEN_VOLUME, "mountPath": pod.TOKEN_MOUNT, "readOnly": True},
        ],
    }


def triton_health() -> Document:
    """Probes and preStop hook of Triton's container, of managed and adopted pods."""
    return {
        "startupProbe": {
            "grpc": {"port": pod.GRPC_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        "livenessProbe": {
            **_exec_probe(f"[ ! -e {pod.HEALTH_MOUNT}/{pod.RESTART} ]"),
            "periodSeconds": 5,
            "failureThreshold": 2,
            # It serves no one any more.
            "terminationGracePeriodSeconds": _HUNG_SECONDS,
        },
        "readinessProbe": {
            **_exec_probe(f"[ -e {pod.HEALTH_MOUNT}/{pod.SERVING} ]"),
            "periodSeconds": 2,
            "failureThreshold": 2,
        },
        # Triton serves nobody once it terminates: clients must have left before.
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", _DRAIN]}}},
    }


def triton_mounts() -> list[Document]:
    """Triton's mounts of the volumes that it shares with the agent."""
    return [
        {"name": pod.KEY_VOLUME, "mountPath": pod.KEY_MOUNT, "readOnly": True},
        {"name": pod.HEALTH_VOLUME, "mountPath": pod.HEALTH_MOUNT},
        {"name": pod.MODELS_VOLUME, "mountPath": pod.MODELS_MOUNT, "readOnly": True},
    ]


def service_ports(*, http: bool) -> list[Document]:
    """Ports of the Service, by the names of Triton's container ports."""
    return [
        *([{"name": pod.HTTP_PORT_NAME, "port": pod.HTTP_PORT, "targetPort": pod.HTTP_PORT_NAME}] if http else []),
        {
            "name": pod.GRPC_PORT_NAME,
            "port": pod.GRPC_PORT,
            "targetPort": pod.GRPC_PORT_NAME,
            "appProtocol": "kubernetes.io/h2c",
        },
    ]


def triton_ports(*, http: bool) -> list[Document]:
    """Ports of Triton's container."""
    return [
        *([{"name": pod.HTTP_PORT_NAME, "containerPort": pod.HTTP_PORT}] if http else []),
        {"name": pod.GRPC_PORT_NAME, "containerPort": pod.GRPC_PORT},
        {"name": pod.METRICS_PORT_NAME, "containerPort": pod.METRICS_PORT},
    ]


def _triton(settings: ManagedServing, image: str, *, http: bool) -> Document:
    return {
        "name": pod.TRITON_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/bin/sh", "-ec", _TRITON.replace("@HTTP@", _HTTP if http else _NO_HTTP)],
        "ports": triton_ports(http=http),
        "resources": resources(settings.resources),
        "securityContext": container_security(),
        **triton_health(),
        "volumeMounts": [
            *triton_mounts(),
            {"name": pod.TRITON_TEMPORARY_VOLUME, "mountPath": pod.TEMPORARY_MOUNT},
            {"name": pod.SHARED_MEMORY_VOLUME, "mountPath": pod.SHARED_MEMORY_MOUNT},
        ],
    }


def _environment(settings: ManagedServing, *, threads: int) -> list[Document]:
    limit, storage = settings.resources.limits.get("memory"), settings.storage
    values: dict[str, str | None] = {
        pod.MODELS_VARIABLE: pod.MODELS_MOUNT,
        pod.STATE_VARIABLE: pod.STATE_MOUNT,
        pod.HEALTH_VARIABLE: pod.HEALTH_MOUNT,
        pod.KEY_FILE_VARIABLE: pod.KEY_FILE,
        pod.METRICS_PORT_VARIABLE: str(pod.AGENT_METRICS_PORT),
        pod.THREADS_VARIABLE: str(_bounded(threads, settings)),
        pod.MEMORY_LIMIT_VARIABLE: None if limit is None else str(bytes_of(limit)),
        pod.STORAGE_LIMIT_VARIABLE: str(bytes_of(storage.size_limit)),
        pod.BYTES_PER_SECOND_VARIABLE: None
        if storage.max_bytes_per_second is None
        else str(storage.max_bytes_per_second),
        "HOME": pod.TEMPORARY_MOUNT,
    }
    return [
        {"name": pod.POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": pod.POD_NAMESPACE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        *({"name": name, "value": value} for name, value in values.items() if value is not None),
    ]


def _bounded(threads: int, settings: ManagedServing) -> int:
    """No more threads than Triton's limit has cores, which is what the kubelet's static CPU manager gives it.

    Our own backend looks at what it was given; the C++ one of NVIDIA's image takes the number as it is.
    """
    cores = quantity(settings.resources.limits.get("cpu"))
    return threads if cores is None else min(threads, max(1, math.ceil(cores)))


def _agent_resources(settings: Resources) -> Document:
    limits = dict(settings.limits)
    if "memory" not in settings.requests:
        limits.setdefault("memory", _AGENT_MEMORY)
    return {
        "requests": {**_AGENT_REQUESTS, **settings.limits, **settings.requests},
        **({"limits": limits} if limits else {}),
    }


def _exec_probe(condition: str) -> Document:
    return {"exec": {"command": ["/bin/sh", "-c", condition]}, "timeoutSeconds": _PROBE_SECONDS}
