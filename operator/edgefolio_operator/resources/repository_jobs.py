"""Builders of the Jobs that check and delete published revisions; the operator itself opens no repository.

Each has the portfolio's credentials and claims and lives for minutes.
"""

from __future__ import annotations

from edgefolio.contract import pod
from edgefolio.specification.cluster import PodSettings
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Document
from edgefolio_operator.resources.pruning_job import (
    Images,
    claims_in,
    container_security,
    localized,
    pod_placement,
    pod_security,
)

#: Deadlines of a check and of all attempts of a deletion.
LONGEST_CHECK_SECONDS = 180
LONGEST_RECLAIM_SECONDS = 900
_RECLAIM_ATTEMPTS = 2
#: A finished Job is kept this long, for its logs.
_KEPT_SECONDS = 900
_RESOURCES = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}


def build_check_job(portfolio: ModelPortfolio, *, name: str, key: str, owner: Document, images: Images) -> Document:
    """The Job that checks the repository. It runs the agent's image where the endpoints run."""
    spec, managed = portfolio.spec, portfolio.spec.serving.managed
    arguments = [str(localized(spec.repository.uri)), spec.serving.model_name]
    if spec.repository.manifest_digest is not None:
        arguments += ["--manifest-digest", spec.repository.manifest_digest]
    elif spec.pinned_revision:
        arguments += ["--revision", str(spec.pinned_revision)]
    if spec.repository.verification_key is not None:
        arguments += ["--verification-key", spec.repository.verification_key]
    job = repository_job(
        portfolio,
        managed,
        name=name,
        component=labels.CHECK_COMPONENT,
        image=managed.agent_image or images.agent,
        command=["python3", "-m", "edgefolio_edge.check", *arguments],
        longest_seconds=LONGEST_CHECK_SECONDS,
        attempts=0,
        read_only=True,
    )
    job["metadata"]["ownerReferences"] = [owner]
    job["metadata"]["annotations"] = {labels.HASH_ANNOTATION: key}
    return job


def build_reclaim_job(portfolio: ModelPortfolio, *, uid: str, images: Images) -> Document:
    """The Job that deletes published revisions, with the image and placement that made them.

    It has no owner, but the ``uid`` of one: owned objects may be collected before the portfolio is gone.
    """
    settings = portfolio.spec.job
    job = repository_job(
        portfolio,
        settings,
        name=labels.reclaim_job_name(portfolio.metadata.name),
        component=labels.RECLAIM_COMPONENT,
        image=settings.image or images.pruner,
        command=[
            "python3",
            "-m",
            "edgefolio_pruner.reclaim",
            str(localized(portfolio.spec.repository.uri)),
            portfolio.spec.serving.model_name,
        ],
        longest_seconds=LONGEST_RECLAIM_SECONDS,
        attempts=_RECLAIM_ATTEMPTS,
        read_only=False,
    )
    job["metadata"]["annotations"] = {labels.HASH_ANNOTATION: uid}
    return job


def repository_job(
    portfolio: ModelPortfolio,
    settings: PodSettings,
    *,
    name: str,
    component: str,
    image: str,
    command: list[str],
    longest_seconds: int,
    attempts: int,
    read_only: bool,
    granted: Document | None = None,
) -> Document:
    """A Job with the portfolio's credentials and claims; ``granted`` are its resources, if other than a check's."""
    job_labels = labels.object_labels(portfolio.metadata.name, component=component)
    repository = portfolio.spec.repository
    secret = repository.reading_secret if read_only else repository.secret_ref
    claims = claims_in(portfolio.spec.model_copy(update={"source": None, "data": None}))
    container: Document = {
        "name": pod.JOB_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": command,
        "env": [{"name": "HOME", "value": pod.TEMPORARY_MOUNT}],
        "resources": _RESOURCES if granted is None else granted,
        "securityContext": container_security(),
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": pod.TEMPORARY_VOLUME, "mountPath": pod.TEMPORARY_MOUNT},
            *(
                {"name": pod.claim_volume(number), "mountPath": pod.claim_mount(claim)}
                for number, claim in enumerate(claims)
            ),
        ],
    }
    if secret is not None:
        container["envFrom"] = [{"secretRef": {"name": secret.name}}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": portfolio.metadata.namespace, "labels": job_labels},
        "spec": {
            "backoffLimit": attempts,
            "activeDeadlineSeconds": longest_seconds,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {
                "metadata": {"labels": job_labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pod_security(),
                    **pod_placement(settings),
                    "containers": [container],
                    "volumes": [
                        {"name": pod.TEMPORARY_VOLUME, "emptyDir": {}},
                        *(
                            {
                                "name": pod.claim_volume(number),
                                "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only},
                            }
                            for number, claim in enumerate(claims)
                        ),
                    ],
                },
            },
        },
    }
