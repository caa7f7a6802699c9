"""Builders of the DaemonSet of a portfolio in mode ``Managed``, its Service and its agents' rights."""

from __future__ import annotations

import hashlib
import json

from edgefolio.contract.pod import GRPC_PORT, HTTP_PORT, HTTP_PORT_NAME, TRITON_CONTAINER, WAIT_CONTAINER
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document, Object, annotations_of
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.pruning_job import Images, repository_claim
from edgefolio_operator.resources.triton_pod import SERVICE_ACCOUNT, build_pod, service_ports


def serves_http(portfolio: ModelPortfolio, *, stored: Object | None) -> bool:
    """Whether clients reach the model over HTTP, too.

    Before there was a choice all did, and an upgrade takes no client's port away: a portfolio that does not say goes on
    where its ``stored`` DaemonSet is of that time.
    """
    if portfolio.spec.serving.http is not None:
        return portfolio.spec.serving.http == "Enabled"
    return _inherits_http(stored)


def _inherits_http(stored: Object | None) -> bool:
    """Whether the DaemonSet serves HTTP because it did before there was a choice."""
    if labels.HTTP_INHERITED_ANNOTATION in annotations_of(stored):
        return True
    pod: Document = (((stored or {}).get("spec") or {}).get("template") or {}).get("spec") or {}
    of_the_choice = any(entry.get("name") == WAIT_CONTAINER for entry in pod.get("initContainers") or ())
    return not of_the_choice and any(
        port.get("name") == HTTP_PORT_NAME
        for container in pod.get("containers") or ()
        if container.get("name") == TRITON_CONTAINER
        for port in container.get("ports") or ()
    )


def build_daemon_set(
    portfolio: ModelPortfolio, *, owner: Document, images: Images, stored: Object | None = None
) -> Document:
    """The DaemonSet of a portfolio in mode ``Managed``; ``stored`` is the one that exists."""
    name, namespace = portfolio.metadata.name, portfolio.metadata.namespace
    selector = {labels.PORTFOLIO_LABEL: name, labels.COMPONENT_LABEL: labels.ENDPOINT_COMPONENT}
    http = serves_http(portfolio, stored=stored)
    annotations = {labels.HASH_ANNOTATION: serving_key(portfolio)}
    if http and portfolio.spec.serving.http is None:
        annotations[labels.HTTP_INHERITED_ANNOTATION] = "true"
    pod_labels = {**labels.object_labels(name, component=labels.ENDPOINT_COMPONENT), labels.ENDPOINT_LABEL: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": pod_labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": pod_labels},
                "spec": build_pod(portfolio, images=images, http=http),
            },
        },
    }


def build_access(portfolio: ModelPortfolio) -> tuple[Document, Document]:
    """Service account and RoleBinding of the agents in the portfolio's namespace.

    All portfolios of a namespace share them, so that they have no owner and stay until the namespace goes.
    """
    metadata = {
        "name": SERVICE_ACCOUNT,
        "namespace": portfolio.metadata.namespace,
        "labels": {labels.MANAGED_BY_LABEL: labels.MANAGER},
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
    """Digest of the pod template's inputs, 16 hexadecimal digits; only its change rolls the pods.

    It leaves out default images and the operator's version: an upgrade of the operator restarts no Triton.
    """
    spec = portfolio.spec
    document: Document = {
        "modelName": spec.serving.model_name,
        "managed": spec.serving.managed.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "secret": spec.repository.reading_secret.name if spec.repository.reading_secret is not None else None,
    }
    if spec.serving.http is not None:
        document["http"] = spec.serving.http
    if spec.serving.threads != 1:
        document["threads"] = spec.serving.threads
    if (claim := repository_claim(spec)) is not None:
        document["claim"] = claim
    return _digest(document)


def build_service(
    portfolio: ModelPortfolio, *, owner: Document, server_version: ServerVersion, stored: Object | None = None
) -> Document:
    """The Service of a portfolio, which routes clients to the Triton of their own node.

    With PreferSameNode, clients of a node without a ready Triton are routed to another; older clusters can only stay on
    the node. ``stored`` is the DaemonSet that exists.
    """
    name, namespace = portfolio.metadata.name, portfolio.metadata.namespace
    traffic = (
        {"trafficDistribution": "PreferSameNode"}
        if server_version.prefers_same_node
        else {"internalTrafficPolicy": "Local"}
    )
    spec: Document = {
        "selector": {labels.PORTFOLIO_LABEL: name, labels.COMPONENT_LABEL: labels.ENDPOINT_COMPONENT},
        "ports": service_ports(http=serves_http(portfolio, stored=stored)),
        **traffic,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels.object_labels(name, component=labels.ENDPOINT_COMPONENT),
            "annotations": {labels.HASH_ANNOTATION: _digest(spec)},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def service_url(portfolio: ModelPortfolio, *, stored: Object | None = None) -> str:
    """URL of the model inside the cluster."""
    host = f"{portfolio.metadata.name}.{portfolio.metadata.namespace}.svc"
    return f"http://{host}:{HTTP_PORT}" if serves_http(portfolio, stored=stored) else f"grpc://{host}:{GRPC_PORT}"


def _digest(document: Document) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
