"""Kubernetes objects as decoded JSON, and the form in which reconcilers may rely on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgefolio.specification.cluster import OBJECT_NAME

#: A Kubernetes object, or a part of one, that is only read.
Object = Mapping[str, Any]
#: One that is decoded or built here.
Document = dict[str, Any]
#: Namespace ("" of cluster-scoped objects) and name.
ObjectKey = tuple[str, str]


#: Any name that is not listed, in a form.
_ANY = "*"
#: As the specification of a ModelEndpoint has it: nonsense there would end the planning of a whole portfolio.
_NODE_NAME = re.compile(OBJECT_NAME)
_CONDITIONS = [{"type": str, "status": str, "reason": str, "message": str, "lastTransitionTime": str}]
_MOUNTS = [{"name": str}]
_CONTAINERS = [{"name": str, "restartPolicy": str, "command": [str], "args": [str], "volumeMounts": _MOUNTS}]
_STATE = {
    "waiting": {"reason": str, "message": str},
    "terminated": {"reason": str, "message": str, "exitCode": int},
}
_METADATA = {
    "name": str,
    "namespace": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "labels": {_ANY: str},
    "annotations": {_ANY: str},
    "finalizers": [str],
    "ownerReferences": [{"uid": str}],
}
#: What is read of each kind; the specs and statuses of our own kinds are read by their models.
_FORMS: dict[str, Document] = {
    "Pod": {
        "spec": {
            "nodeName": _NODE_NAME,
            "initContainers": _CONTAINERS,
            "containers": _CONTAINERS,
            "volumes": [{"name": str, "emptyDir": {"medium": str}}],
        },
        "status": {
            "phase": str,
            "conditions": _CONDITIONS,
            "containerStatuses": [{"name": str, "state": _STATE, "lastState": _STATE}],
        },
    },
    "Node": {"spec": {}, "status": {"conditions": _CONDITIONS, "allocatable": {"cpu": str, "memory": str}}},
    "Job": {
        "spec": {"suspend": bool},
        "status": {"conditions": _CONDITIONS, "startTime": str, "completionTime": str, "succeeded": int},
    },
}
_OTHER: Document = {"spec": {}, "status": {}}


def has_name(thing: Any) -> bool:
    """Whether ``thing`` is an object with a name, and a namespace if it has one."""
    metadata = thing.get("metadata") if isinstance(thing, Mapping) else None
    if not isinstance(metadata, Mapping):
        return False
    name, namespace = metadata.get("name"), metadata.get("namespace")
    return isinstance(name, str) and bool(name) and (namespace is None or isinstance(namespace, str))


def well_formed(thing: Object) -> Object:
    """``thing``, which has a name, without what is not of the type that Kubernetes says it has.

    Objects come from an API server that checks them, and still a definition that was replaced, or an extension API that
    checks nothing, can hold anything. One such object must not end what reads all of them.
    """
    kind = thing.get("kind")
    form = _FORMS.get(kind, _OTHER) if isinstance(kind, str) else _OTHER
    found: Document = _fitted(thing, {"metadata": _METADATA, **form})
    if kind in ("ModelPortfolio", "ModelEndpoint", "Pod", "Job"):
        found.setdefault("spec", {})
    return found


def _fitted(value: Any, form: Any) -> Any:
    """``value`` without the parts that are not of ``form``; ``None`` if it is not of that type itself."""
    if isinstance(form, type):
        return value if type(value) is form else None
    if isinstance(form, re.Pattern):
        return value if isinstance(value, str) and form.fullmatch(value) else None
    if isinstance(form, list):
        if not isinstance(value, list):
            return None
        return [part for item in value if (part := _fitted(item, form[0])) is not None]
    if not isinstance(value, Mapping):
        return None
    found = {}
    for key, inner in value.items():
        wanted = form.get(key, form.get(_ANY))
        part = inner if wanted is None else _fitted(inner, wanted)
        if part is not None:
            found[key] = part
    return found


def part_of(thing: Object, *path: str) -> Any:
    """The part of ``thing`` at ``path``; ``None`` where there is none, or something else on the way."""
    found: Any = thing
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def object_key(thing: Object) -> ObjectKey:
    """Namespace and name of ``thing``."""
    return thing["metadata"].get("namespace") or "", thing["metadata"]["name"]


def annotations_of(thing: Object | None) -> Mapping[str, str]:
    """Annotations of an object, none if there is no object."""
    found: Mapping[str, str] = (thing or {}).get("metadata", {}).get("annotations") or {}
    return found


def has_condition(thing: Object, kind: str) -> bool:
    """Whether a pod or node has the condition ``kind``."""
    conditions = thing.get("status", {}).get("conditions", ())
    return any(entry.get("type") == kind and entry.get("status") == "True" for entry in conditions)


def has_ended(pod: Object) -> bool:
    """Whether all containers of ``pod`` have ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def controller_of(thing: Object) -> Object | None:
    """Reference to the object that controls ``thing``; ``None`` of one that stands alone."""
    references = thing["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller") is True), None)


def is_controlled_by(thing: Object, owner: Object) -> bool:
    """Whether ``owner`` controls ``thing``: by uid, which no namesake and no label can claim."""
    reference, uid = controller_of(thing), owner["metadata"].get("uid")
    return reference is not None and bool(uid) and reference.get("uid") == uid


def owner_reference(owner: Object) -> Document:
    """Reference to ``owner`` as the controller of another object, which is garbage-collected with it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"].get("uid", ""),
        "controller": True,
        "blockOwnerDeletion": True,
    }
