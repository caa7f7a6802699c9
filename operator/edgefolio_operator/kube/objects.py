"""Objects as the API server writes them: their type, their identity, and who owns them."""

from __future__ import annotations

from typing import Any

#: A Kubernetes object, or a part of one, as decoded JSON.
Object = dict[str, Any]
#: Namespace ("" of cluster-scoped objects) and name.
ObjectKey = tuple[str, str]


def object_key(thing: Object) -> ObjectKey:
    """Namespace and name of ``thing``."""
    return thing["metadata"].get("namespace") or "", thing["metadata"]["name"]


def resource_version(thing: Object) -> int:
    """The resourceVersion as a number, 0 where there is none; compares two versions of one kind (Kubernetes 1.35)."""
    version = str(thing["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdigit() else 0
