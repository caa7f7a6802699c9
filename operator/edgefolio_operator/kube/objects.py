"""Kubernetes objects as decoded JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A Kubernetes object, or a part of one, that is only read.
Object = Mapping[str, Any]
#: One that is decoded or built here.
Document = dict[str, Any]
#: Namespace ("" of cluster-scoped objects) and name.
ObjectKey = tuple[str, str]


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
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)


def has_ended(pod: Object) -> bool:
    """Whether all containers of ``pod`` have ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def owner_reference(owner: Object) -> Document:
    """Reference to ``owner`` as the controller of another object, which is garbage-collected with it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
