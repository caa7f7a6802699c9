"""Builders of the Job that makes a revision, and of the ConfigMap with the file it reads.

The pod runs in a restricted namespace: not as root, with a read-only root file system, without capabilities. It reads
the very resource that the user wrote, with ``pvc://`` URIs replaced by the paths where the claims are mounted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgefolio.contract import pod
from edgefolio.errors import EXIT_BAD_INPUT
from edgefolio.specification.cluster import JobSpecification, PodSettings, Resources
from edgefolio.specification.resource import ModelPortfolio, PortfolioSpecification
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document

#: A Job removed the moment it ends would be run again: its outcome would be lost.
LEAST_TTL_SECONDS = 60
LOST_NODE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Images:
    """Default images, from the operator's installation."""

    pruner: str
    agent: str
    triton: str


def build_specification(portfolio: ModelPortfolio, *, key: str, owner: Document) -> Document:
    """The ConfigMap that holds the file which the Job reads."""
    document = localized(
        {
            "apiVersion": portfolio.api_version,
            "kind": portfolio.kind,
            "metadata": {"name": portfolio.metadata.name},
            # Without defaults and what only endpoints need: an older pruner does not know every field.
            "spec": portfolio.spec.model_dump(
                mode="json",
                by_alias=True,
                exclude={"serving": {"http", "managed"}, "repository": {"read_secret_ref"}},
                exclude_none=True,
                exclude_defaults=True,
            ),
        }
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(portfolio, key=key, owner=owner),
        "data": {pod.SPECIFICATION_FILE: json.dumps(document, sort_keys=True)},
    }


def build_job(
    portfolio: ModelPortfolio, *, key: str, owner: Document, images: Images, request: str = "", pieces: int = 0
) -> Document:
    """The Job of the pruning run ``key``; with ``pieces``, the Indexed Job whose pods make that many parts of it."""
    settings = portfolio.spec.job
    metadata = _metadata(portfolio, key=key, owner=owner)
    metadata["annotations"] = {labels.HASH_ANNOTATION: key, **({labels.REQUEST_ANNOTATION: request} if request else {})}
    if pieces:
        metadata["name"] = labels.pieces_job_name(portfolio.metadata.name, key)
        metadata["annotations"][labels.PIECES_ANNOTATION] = str(pieces)
    spec: Document = {
        "suspend": settings.suspend,
        **_shape(settings, pieces=pieces),
        "ttlSecondsAfterFinished": max(settings.ttl_seconds_after_finished, LEAST_TTL_SECONDS),
        "podFailurePolicy": {
            "rules": [
                # Bad input is not retried; a lost node is no failure.
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": pod.JOB_CONTAINER, "operator": "In", "values": [EXIT_BAD_INPUT]},
                },
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {
            "metadata": {"labels": labels.object_labels(portfolio.metadata.name, component=labels.JOB_COMPONENT)},
            "spec": _pod(portfolio, settings, key=key, image=settings.image or images.pruner, pieces=pieces),
        },
    }
    if settings.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.active_deadline_seconds
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def work_uri(portfolio: ModelPortfolio) -> str | None:
    """URI of the portfolio's folder in the object store of its work directory, if it has one."""
    work = portfolio.spec.job.work_directory
    if work is None or work.uri is None:
        return None
    return f"{work.uri.rstrip('/')}/{portfolio.metadata.namespace}/{portfolio.metadata.name}"


def localized(document: Any) -> Any:
    """``document`` with every ``pvc://claim/path`` in it replaced by the path under the mounted claim."""
    if isinstance(document, dict):
        return {key: localized(value) for key, value in document.items()}
    if isinstance(document, list):
        return [localized(value) for value in document]
    return pod.path_in_pod(document) if isinstance(document, str) else document


def claims_in(spec: PortfolioSpecification) -> tuple[str, ...]:
    """Names of the claims that the ``pvc://`` URIs of a portfolio name."""

    def found(document: Any) -> Iterator[str]:
        if isinstance(document, dict):
            document = list(document.values())
        if isinstance(document, list):
            for value in document:
                yield from found(value)
        elif isinstance(document, str) and (claim := pod.claim_of(document)) is not None:
            yield claim

    # Only these fields hold URIs: a pvc:// in an environment variable mounts nothing.
    uris = spec.model_dump(
        mode="json", include={"source": {"weights_uri", "model_uri"}, "data": True, "repository": {"uri"}}
    )
    return tuple(sorted(set(found(uris))))


def repository_claim(spec: PortfolioSpecification) -> str | None:
    """Name of the claim that the repository lies on; ``None`` where it lies elsewhere."""
    return pod.claim_of(spec.repository.uri)


def pod_security() -> Document:
    """Security of a pod in a restricted namespace; any user but root."""
    return {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Document:
    """Security of a container in a restricted namespace."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_placement(settings: PodSettings) -> Document:
    """Scheduling and image pull fields of a pod."""
    placement: Document = {}
    if settings.image_pull_secrets:
        placement["imagePullSecrets"] = [{"name": entry.name} for entry in settings.image_pull_secrets]
    if settings.node_selector:
        placement["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        placement["tolerations"] = [
            entry.model_dump(mode="json", by_alias=True, exclude_none=True) for entry in settings.tolerations
        ]
    if settings.priority_class_name is not None:
        placement["priorityClassName"] = settings.priority_class_name
    return placement


def resources(settings: Resources) -> Document:
    """Requests and limits of a container; empty ones are left out."""
    return {key: dict(value) for key, value in (("requests", settings.requests), ("limits", settings.limits)) if value}


def _metadata(portfolio: ModelPortfolio, *, key: str, owner: Document) -> Document:
    return {
        "name": labels.job_name(portfolio.metadata.name, key),
        "namespace": portfolio.metadata.namespace,
        "labels": labels.object_labels(portfolio.metadata.name, component=labels.JOB_COMPONENT),
        "ownerReferences": [owner],
    }


def _shape(settings: JobSpecification, *, pieces: int) -> Document:
    """Completions, parallelism and retries of the Job."""
    if not pieces:
        return {"backoffLimit": settings.backoff_limit}
    return {
        "completionMode": "Indexed",
        "completions": pieces,
        "parallelism": min(pieces, settings.parallelism),
        "backoffLimitPerIndex": settings.backoff_limit,
        # Without one of the pieces the others are useless; their results are kept.
        "maxFailedIndexes": 0,
    }


def _pod(portfolio: ModelPortfolio, settings: JobSpecification, *, key: str, image: str, pieces: int) -> Document:
    secret, work = portfolio.spec.repository.secret_ref, work_uri(portfolio)
    volumes, mounts = _volumes(portfolio.spec, specification=labels.job_name(portfolio.metadata.name, key))
    placement = pod_placement(settings)
    if work is not None:
        placement["tolerations"] = [*placement.get("tolerations", ()), *_leaving_lost_nodes(settings)]
    container: Document = {
        "name": pod.JOB_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "edgefolio_pruner.job"],
        "args": [
            f"{pod.SPECIFICATION_MOUNT}/{pod.SPECIFICATION_FILE}",
            pod.WORK_MOUNT,
            *(["--work-uri", work] if work is not None else []),
            *(["--pieces", str(pieces)] if pieces else []),
        ],
        "env": [
            {"name": "HOME", "value": pod.TEMPORARY_MOUNT},
            {"name": pod.MAKING_VARIABLE, "value": key},
            *({"name": entry.name, "value": entry.value} for entry in settings.env),
        ],
        "resources": resources(settings.resources),
        "securityContext": container_security(),
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    if secret is not None:
        container["envFrom"] = [{"secretRef": {"name": secret.name}}]
    return {
        "restartPolicy": "Never",
        # Training and pruning need no API; an absent token cannot be stolen.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        **placement,
        "containers": [container],
        "volumes": volumes,
    }


def _leaving_lost_nodes(settings: JobSpecification) -> list[Document]:
    """Tolerations that evict a pod from a lost node after a minute, not the usual five: it resumes on any other."""
    own = {toleration.key for toleration in settings.tolerations}
    if None in own:
        return []
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if key not in own
    ]


def _volumes(spec: PortfolioSpecification, *, specification: str) -> tuple[list[Document], list[Document]]:
    """Volumes of the pod, and the mounts of its container."""
    work = spec.job.work_directory
    claims = dict.fromkeys(claims_in(spec), False)
    volumes: list[Document] = [
        {"name": pod.SPECIFICATION_VOLUME, "configMap": {"name": specification}},
        {"name": pod.TEMPORARY_VOLUME, "emptyDir": {}},
    ]

    def volume_of(claim: str) -> str:
        return pod.claim_volume(list(claims).index(claim))

    mounts: list[Document] = [
        {"name": pod.SPECIFICATION_VOLUME, "mountPath": pod.SPECIFICATION_MOUNT, "readOnly": True},
        {"name": pod.TEMPORARY_VOLUME, "mountPath": pod.TEMPORARY_MOUNT},
    ]
    if work is not None and work.claim_name is not None:
        claims[work.claim_name] = False
        mounts.append({"name": volume_of(work.claim_name), "mountPath": pod.WORK_MOUNT})
    else:
        volumes.append({"name": pod.WORK_VOLUME, "emptyDir": {}})
        mounts.append({"name": pod.WORK_VOLUME, "mountPath": pod.WORK_MOUNT})
    for entry in spec.job.volumes:
        claims.setdefault(entry.claim_name, entry.read_only)
    for claim in claims:
        volumes.append({"name": volume_of(claim), "persistentVolumeClaim": {"claimName": claim}})
    for claim in claims_in(spec):
        mounts.append({"name": volume_of(claim), "mountPath": pod.claim_mount(claim)})
    for entry in spec.job.volumes:
        mounts.append({"name": volume_of(entry.claim_name), "mountPath": entry.mount_path, "readOnly": entry.read_only})
    return volumes, mounts
