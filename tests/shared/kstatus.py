"""How kstatus, and with it Flux, reads the status of a resource it knows nothing of.

After ``Compute`` of sigs.k8s.io/cli-utils/pkg/kstatus/status: the generic properties first, then the condition Ready.
"""

from __future__ import annotations

from typing import Any


def compute(thing: dict[str, Any]) -> str:
    """Terminating, InProgress, Failed or Current."""
    metadata, status = thing["metadata"], thing.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if "generation" in metadata and observed is not None and observed != metadata["generation"]:
        return "InProgress"
    for condition in status.get("conditions", ()):
        # In the order of the list: the first of the two that is true counts.
        if condition["status"] == "True" and condition["type"] == "Reconciling":
            return "InProgress"
        if condition["status"] == "True" and condition["type"] == "Stalled":
            return "Failed"
    for condition in status.get("conditions", ()):
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"
