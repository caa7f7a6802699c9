"""Triton on the chosen nodes: a DaemonSet with the agent beside it, and the Service in front of it.

The pod is restricted: not as root, read-only root file systems, no capabilities. An init container writes a random key
into memory; Triton is started with its control interfaces closed to everyone who does not send it, and only the agent
can read it as well. Clients reach inference alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgefolio.specification.base import bytes_of
from edgefolio.specification.resource import ModelPortfolio
from edgefolio.specification.serving import Serving
from edgefolio_operator import names
from edgefolio_operator.jobs import Images, container_security, pod_placement, pod_security, resources

Object = dict[str, Any]

SERVICE_ACCOUNT = "edgefolio-agent"
HTTP_PORT, GRPC_PORT, METRICS_PORT, AGENT_METRICS_PORT = 8000, 8001, 8002, 9002
#: So long a pod goes on serving after it was told to end: until nobody sends it requests any more.
DRAIN_SECONDS = 5
GRACE_SECONDS = 30

_KEY = "/run/edgefolio"
_MODELS = "/models"
_STATE = "/state"
_RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
_TRITON = f"""\
key="$(cat {_KEY}/key)"
exec tritonserver --model-repository={_MODELS} --model-control-mode=explicit --disable-auto-complete-config \\
  --strict-readiness=false --exit-timeout-secs=20 --allow-gpu-metrics=false \\
  --http-port={HTTP_PORT} --grpc-port={GRPC_PORT} --metrics-port={METRICS_PORT} \\
  --grpc-restricted-protocol="{_RESTRICTED}:$key" --http-restricted-api="{_RESTRICTED}:$key" \\
  --metrics-config summary_latencies=true --metrics-config summary_quantiles=0.5:0.05,0.95:0.005
"""
# A key file of another run must not outlive its Triton: the volume lives as long as the pod, so the key does, too.
_MAKE_KEY = (
    f"umask 077; [ -s {_KEY}/key ] || echo edgefolio-key=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \\n')"
    f" > {_KEY}/key"
)


def build_daemon_set(portfolio: ModelPortfolio, *, owner: Object, images: Images) -> Object:
    """The DaemonSet of a portfolio in mode ``Managed``."""
    name, namespace = portfolio.metadata.name, portfolio.metadata.namespace
    selector = {names.PORTFOLIO_LABEL: name, names.COMPONENT_LABEL: names.ENDPOINT_COMPONENT}
    labels = {**names.labels(name, component=names.ENDPOINT_COMPONENT), names.ENDPOINT_LABEL: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": {names.HASH_ANNOTATION: serving_key(portfolio)},
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": _pod(portfolio.spec.serving, portfolio, images)},
        },
    }


def build_access(portfolio: ModelPortfolio) -> tuple[Object, Object]:
    """The agents' service account in the portfolio's namespace, and what it may do there.

    All portfolios of a namespace share them, so that they have no owner and stay until the namespace goes.
    """
    metadata = {
        "name": SERVICE_ACCOUNT,
        "namespace": portfolio.metadata.namespace,
        "labels": {names.MANAGED_BY_LABEL: names.MANAGER},
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": SERVICE_ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": portfolio.metadata.namespace}],
    }
    return account, binding


def serving_key(portfolio: ModelPortfolio) -> str:
    """What the pods are made from, in 16 hexadecimal digits: they are restarted when it changes, and only then.

    Images that the portfolio does not name and the operator's own version have no part in it: an upgrade of the
    operator restarts no Triton.
    """
    spec = portfolio.spec
    document = {
        "modelName": spec.serving.model_name,
        "managed": spec.serving.managed.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "secret": spec.repository.secret_ref.name if spec.repository.secret_ref is not None else None,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def build_service(portfolio: ModelPortfolio, *, owner: Object) -> Object:
    """The Service of a portfolio: each client is answered by its own node, where there is one."""
    name, namespace = portfolio.metadata.name, portfolio.metadata.namespace
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": names.labels(name, component=names.ENDPOINT_COMPONENT),
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {names.PORTFOLIO_LABEL: name, names.COMPONENT_LABEL: names.ENDPOINT_COMPONENT},
            "ports": [
                {"name": "http", "port": HTTP_PORT, "targetPort": "http"},
                {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
            ],
            "internalTrafficPolicy": "Local",
        },
    }


def service_url(portfolio: ModelPortfolio) -> str:
    """Where clients inside the cluster reach the model."""
    return f"http://{portfolio.metadata.name}.{portfolio.metadata.namespace}.svc:{HTTP_PORT}"


def _pod(serving: Serving, portfolio: ModelPortfolio, images: Images) -> Object:
    managed = serving.managed
    agent_image = managed.agent_image or images.agent
    storage = managed.storage.size_limit
    return {
        "serviceAccountName": SERVICE_ACCOUNT,
        # Triton has no business with the API: the token is mounted into the agent alone.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        **pod_placement(managed),
        "initContainers": [
            {
                "name": "key",
                "image": agent_image,
                "imagePullPolicy": managed.image_pull_policy,
                "command": ["/bin/sh", "-ec", _MAKE_KEY],
                "resources": resources(managed.agent_resources),
                "securityContext": container_security(),
                "volumeMounts": [{"name": "key", "mountPath": _KEY}],
            },
            _agent(portfolio, agent_image),
        ],
        "containers": [_triton(serving, managed.image or images.triton)],
        "volumes": [
            {"name": "key", "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}},
            {"name": "models", "emptyDir": {"sizeLimit": storage}},
            {"name": "state", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "temporary", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {"name": "token", "projected": {"sources": _token_sources()}},
        ],
    }


def _agent(portfolio: ModelPortfolio, image: str) -> Object:
    """A native sidecar: started before Triton, and stopped after it."""
    managed, secret = portfolio.spec.serving.managed, portfolio.spec.repository.secret_ref
    environment: list[Object] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "EDGEFOLIO_MODELS", "value": _MODELS},
        {"name": "EDGEFOLIO_STATE", "value": _STATE},
        {"name": "EDGEFOLIO_KEY_FILE", "value": f"{_KEY}/key"},
        {"name": "EDGEFOLIO_METRICS_PORT", "value": str(AGENT_METRICS_PORT)},
        {"name": "HOME", "value": "/tmp"},
    ]
    limit = managed.resources.limits.get("memory")
    if limit is not None:
        environment.append({"name": "EDGEFOLIO_MEMORY_LIMIT", "value": str(bytes_of(limit))})
    container: Object = {
        "name": "agent",
        "image": image,
        "imagePullPolicy": managed.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["python3", "-m", "edgefolio_edge.cluster"],
        "env": environment,
        "ports": [{"name": "agent-metrics", "containerPort": AGENT_METRICS_PORT}],
        "resources": resources(managed.agent_resources),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "key", "mountPath": _KEY, "readOnly": True},
            {"name": "models", "mountPath": _MODELS},
            {"name": "state", "mountPath": _STATE},
            {"name": "temporary", "mountPath": "/tmp"},
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
        ],
    }
    if secret is not None:
        container["envFrom"] = [{"secretRef": {"name": secret.name}}]
    return container


def _triton(serving: Serving, image: str) -> Object:
    # Ready says that a version is loaded. Whether it answers, the agent finds out by inference, and repairs it.
    ready = {"httpGet": {"path": f"/v2/models/{serving.model_name}/ready", "port": "http"}}
    live = {"httpGet": {"path": "/v2/health/live", "port": "http"}}
    return {
        "name": "triton",
        "image": image,
        "imagePullPolicy": serving.managed.image_pull_policy,
        "command": ["/bin/sh", "-ec", _TRITON],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": resources(serving.managed.resources),
        "securityContext": container_security(),
        "startupProbe": {**live, "periodSeconds": 1, "failureThreshold": 120},
        "livenessProbe": {**live, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 5},
        "readinessProbe": {**ready, "periodSeconds": 2, "failureThreshold": 3, "timeoutSeconds": 5},
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "volumeMounts": [
            {"name": "key", "mountPath": _KEY, "readOnly": True},
            {"name": "models", "mountPath": _MODELS, "readOnly": True},
            {"name": "temporary", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }


def _token_sources() -> list[Object]:
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
