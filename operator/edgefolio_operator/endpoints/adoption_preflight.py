"""Preflight check of a pod to be adopted: missing parts that the agent needs. Pure.

The parts come with the kustomize component; a pod without them gets no endpoint and is left alone. Only the pod's
specification is checked: flags that an image sets itself are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgefolio.contract.pod import AGENT_CONTAINER, HEALTH_VOLUME, KEY_VOLUME, MODELS_VOLUME
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import Object, has_ended
from edgefolio_operator.messages import listed

COMPONENT = "manifests/components/adopt"
#: Volumes that the agent shares with Triton, with their purpose.
SHARED_VOLUMES = {
    KEY_VOLUME: "the key of Triton's control interfaces",
    HEALTH_VOLUME: "how Triton is",
    MODELS_VOLUME: "verified variants",
}
#: What closes each control interface: any of them.
_RESTRICTED_FLAGS = (("--grpc-restricted-protocol",), ("--http-restricted-api", "--allow-http=false"))


def missing_parts(pod: Object) -> tuple[str, ...]:
    """What ``pod`` lacks, each as a few words; nothing if it can be adopted."""
    return tuple(_missing(pod))


def incompatible(pods: Sequence[Object]) -> dict[str, tuple[str, ...]]:
    """The pods that cannot be adopted, by name, with what they lack; pods that have ended are not judged."""
    found = {str(pod["metadata"]["name"]): missing_parts(pod) for pod in pods if not _has_ended(pod)}
    return {name: parts for name, parts in sorted(found.items()) if parts}


def remedy(faults: Mapping[str, Sequence[str]], *, total: int) -> str:
    """The message about pods that cannot be adopted: a few of them, what they lack, and what to do."""
    lacking = listed([f"{name} lacks {', '.join(parts)}" for name, parts in faults.items()], separator="; ")
    return (
        f"{len(faults)} of {total} selected pods cannot be adopted: {lacking}. "
        f"Add the kustomize component {COMPONENT} to their workload."
    )


def _missing(pod: Object) -> Iterator[str]:
    spec = pod["spec"]
    if labels.ENDPOINT_LABEL not in (pod["metadata"].get("labels") or {}):
        yield f"the label {labels.ENDPOINT_LABEL}"
    agent, servers = _agent(spec), _servers(spec)
    if agent is None:
        yield f"the container {AGENT_CONTAINER}"
    elif agent.get("restartPolicy") != "Always" and agent in (spec.get("initContainers") or ()):
        yield f"restartPolicy Always at the init container {AGENT_CONTAINER}"
    volumes = {str(entry.get("name")): entry for entry in spec.get("volumes") or ()}
    for name, purpose in SHARED_VOLUMES.items():
        if name not in volumes:
            yield f"the volume {name} ({purpose})"
        elif agent is not None and not (_mounts(agent, name) and any(_mounts(server, name) for server in servers)):
            yield f"the volume {name} mounted by both {AGENT_CONTAINER} and Triton"
    key = volumes.get(KEY_VOLUME)
    if key is not None and (key.get("emptyDir") or {}).get("medium") != "Memory":
        yield f"a volume {KEY_VOLUME} in memory (emptyDir.medium: Memory)"
    for server in servers:
        yield from _missing_flags(server)


def _missing_flags(server: Object) -> Iterator[str]:
    """Missing flags of a Triton whose command is in the pod spec."""
    line = " ".join(map(str, (*(server.get("command") or ()), *(server.get("args") or ()))))
    if "tritonserver" not in line:
        return
    if "--model-control-mode=explicit" not in line.replace("mode explicit", "mode=explicit"):
        yield "--model-control-mode=explicit at Triton"
    for flags in _RESTRICTED_FLAGS:
        if not any(flag in line for flag in flags):
            yield f"{' or '.join(flags)} at Triton"


def _agent(spec: Object) -> Object | None:
    containers = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    return next((entry for entry in containers if entry.get("name") == AGENT_CONTAINER), None)


def _servers(spec: Object) -> list[Object]:
    return [entry for entry in spec.get("containers") or () if entry.get("name") != AGENT_CONTAINER]


def _mounts(container: Object, volume: str) -> bool:
    return any(mount.get("name") == volume for mount in container.get("volumeMounts") or ())


def _has_ended(pod: Object) -> bool:
    return has_ended(pod) or bool(pod["metadata"].get("deletionTimestamp"))
