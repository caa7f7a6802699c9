"""Builders of the DaemonSet of a portfolio in mode ``Managed``, its Service and its agents' rights."""

from __future__ import annotations

import hashlib
import json

from edgefolio.contract.pod import HTTP_PORT
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.pruning_job import Images, repository_claim
from edgefolio_operator.resources.triton_pod import SERVICE_ACCOUNT, build_pod, service_ports


def build_daemon_set(portfolio: ModelPortfolio, *, owner: Document, images: Images) -> Document:
    """The DaemonSet of a portfolio in mode ``Managed``."""
    name, namespace = portfolio.metadata.name, portfolio.metadata.namespace
    selector = {labels.PORTFOLIO_LABEL: name, labels.COMPONENT_LABEL: labels.ENDPOINT_COMPONENT}
    pod_labels = {**labels.object_labels(name, component=labels.ENDPOINT_COMPONENT), labels.ENDPOINT_LABEL: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": pod_labels,
            "annotations": {labels.HASH_ANNOTATION: serving_key(portfolio)},
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": pod_labels}, "spec": build_pod(portfolio, images=images)},
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
        "secret": spec.repository.secret_ref.name if spec.repository.secret_ref is not None else None,
    }
    if spec.serving.threads != 1:
        document["threads"] = spec.serving.threads
    if (claim := repository_claim(spec)) is not None:
        document["claim"] = claim
    return _digest(document)


def build_service(portfolio: ModelPortfolio, *, owner: Document, server_version: ServerVersion) -> Document:
    """The Service of a portfolio, which routes clients to the Triton of their own node.

    With PreferSameNode, clients of a node without a ready Triton are routed to another; older clusters can only stay on
    the node.
    """
    name, namespace = portfolio.metadata.name, portfolio.metadata.namespace
    traffic = (
        {"trafficDistribution": "PreferSameNode"}
        if server_version.prefers_same_node
        else {"internalTrafficPolicy": "Local"}
    )
    spec: Document = {
        "selector": {labels.PORTFOLIO_LABEL: name, labels.COMPONENT_LABEL: labels.ENDPOINT_COMPONENT},
        "ports": service_ports(),
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


def service_url(portfolio: ModelPortfolio) -> str:
    """URL of the model inside the cluster."""
    return f"http://{portfolio.metadata.name}.{portfolio.metadata.namespace}.svc:{HTTP_PORT}"


def _digest(document: Document) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
