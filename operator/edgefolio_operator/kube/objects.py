"""Kubernetes objects as decoded JSON."""

from __future__ import annotations

from typing import Any

#: A Kubernetes object, or a part of one, as decoded JSON.
Object = dict[str, Any]
#: Namespace ("" of cluster-scoped objects) and name.
ObjectKey = tuple[str, str]


def object_key(thing: Object) -> ObjectKey:
    """Namespace and name of ``thing``."""
    return thing["metadata"].get("namespace") or "", thing["metadata"]["name"]
