"""Volumes of the serving pod: what agent and Triton share, their scratch space, shared memory, credentials."""

from __future__ import annotations

from edgefolio.contract import pod
from edgefolio.specification.cluster import ManagedServing, SecretReference
from edgefolio.specification.validation.base import bytes_of
from edgefolio_operator.kube.objects import Document

#: Bounds of what agent and Triton may leave in ``/tmp``.
_AGENT_SCRATCH, _TRITON_SCRATCH = "256Mi", "1Gi"
#: Orders, manifests and history of an agent: some megabytes.
_STATE = "256Mi"
#: Shared memory where neither it nor a memory limit is given. It is a bound: unused shared memory costs nothing.
_SHARED_MEMORY_BYTES = 512 << 20
#: Where there is a memory limit, shared memory may take this part of it, but at least what container runtimes give.
_SHARED_MEMORY_PART, _LEAST_SHARED_MEMORY_BYTES = 4, 64 << 20


def volumes(settings: ManagedServing) -> list[Document]:
    """The volumes of agent and Triton. They live as long as the pod at least, restarts of its containers included."""
    return [
        {"name": pod.KEY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}},
        {"name": pod.HEALTH_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}},
        {"name": pod.MODELS_VOLUME, **_kept(settings, "models", size_limit=settings.storage.size_limit)},
        {"name": pod.STATE_VOLUME, **_kept(settings, "state", size_limit=_STATE)},
        {"name": pod.TEMPORARY_VOLUME, "emptyDir": {"sizeLimit": _AGENT_SCRATCH}},
        {
            "name": pod.TOKEN_VOLUME,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                ]
            },
        },
    ]


def _kept(settings: ManagedServing, folder: str, *, size_limit: str) -> Document:
    """A volume that lives as long as the pod, or a directory of the node that outlives it."""
    if settings.storage.host_path is None:
        return {"emptyDir": {"sizeLimit": size_limit}}
    # The kubelet would make it for root, and the agent could not write to it.
    return {"hostPath": {"path": f"{settings.storage.host_path}/{folder}", "type": "Directory"}}


def triton_volumes(settings: ManagedServing) -> list[Document]:
    """The volumes of Triton alone."""
    shared_memory = str(shared_memory_bytes_of(settings))
    return [
        {"name": pod.TRITON_TEMPORARY_VOLUME, "emptyDir": {"sizeLimit": _TRITON_SCRATCH}},
        {"name": pod.SHARED_MEMORY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}},
    ]


def credentials_volume(secret: SecretReference) -> Document:
    """The object store's credentials as files: those of a changed Secret are read without a restart.

    Optional, because an agent without credentials says what it lacks, and a pod that cannot start says nothing.
    """
    source = {"secretName": secret.name, "optional": True, "defaultMode": 0o440}
    return {"name": pod.CREDENTIALS_VOLUME, "secret": source}


def shared_memory_bytes_of(settings: ManagedServing) -> int:
    """Size limit of Triton's shared memory: what is asked for, else a part of the memory limit, else a fixed bound."""
    if settings.shared_memory is not None:
        return bytes_of(settings.shared_memory)
    limit = settings.resources.limits.get("memory")
    if limit is None:
        return _SHARED_MEMORY_BYTES
    return max(_LEAST_SHARED_MEMORY_BYTES, bytes_of(limit) // _SHARED_MEMORY_PART)
