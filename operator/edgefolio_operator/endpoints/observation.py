"""Observation of an endpoint: its agent's report joined with usage and conditions of its node and pod. Pure.

Of two fresh figures the more cautious one counts; a sample that is missing, stale or from before
the last switch is not used. The agent's own figures keep their age: the core decides whether they are fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgefolio.decision.types import MemoryState, NodeState, Observation
from edgefolio.specification.validation.base import quantity
from edgefolio_operator.cluster_state.resource_usage import PodSample, Sample
from edgefolio_operator.kube.objects import Object

#: Node conditions that report a shortage while true.
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """Node, usage and reservations of one endpoint; unknown ones are ``None``.

    ``reserved`` gives the bytes that switches of other endpoints on the node were promised and that a figure taken at
    a given time cannot show yet. ``stale_after`` is in seconds.
    """

    node: Object | None = None
    node_sample: Sample | None = None
    pod_sample: PodSample | None = None
    stale_after: float = 60.0
    reserved: Callable[[float], int] = lambda _seen_at: 0


def joined(
    observation: Observation, view: ClusterView, *, observed_at: float, settled_at: float, now: float
) -> Observation:
    """``observation`` with what ``view`` adds to it.

    ``observed_at`` is when the agent's memory figures were taken. A sample of memory from before ``settled_at`` is of
    the variant before the last switch and says nothing of this one.
    """
    node_sample, pod_sample = _fresh(view.node_sample, view, now), view.pod_sample
    if pod_sample is not None and _fresh(pod_sample.total, view, now) is None:
        pod_sample = None
    memory, available = observation.memory, None
    if node_sample is not None and node_sample.time >= settled_at:
        available = _left_on(view.node, node_sample)
    own = memory.node_available_bytes if memory is not None else None
    figures = [
        (amount, taken_at)
        for amount, taken_at in (
            (own, observed_at),
            (available, node_sample.time if node_sample is not None else now),
        )
        if amount is not None
    ]
    left = min((amount for amount, _ in figures), default=None)
    # A figure does not show later promises; the least remainder counts.
    free = min((amount - view.reserved(taken_at) for amount, taken_at in figures), default=None)
    server = pod_sample.server_bytes if pod_sample is not None and pod_sample.total.time >= settled_at else None
    state = NodeState(
        others_cpu_percent=_others_percent(view.node, node_sample, pod_sample),
        pressures=pressures_of(view.node),
        reserved_bytes=0 if left is None or free is None else max(0, left - free),
    )
    return replace(
        observation,
        memory=_cautious(memory, left=left, server=server),
        node=None if state == NodeState() else state,
    )


def pressures_of(node: Object | None) -> tuple[str, ...]:
    """The shortages that a node reports."""
    true = {
        entry.get("type")
        for entry in (node or {}).get("status", {}).get("conditions") or ()
        if entry.get("status") == "True"
    }
    return tuple(name for name in PRESSURES if name in true)


def allocatable(node: Object | None, resource: str) -> float | None:
    """Allocatable amount of ``resource`` on a node."""
    amount = quantity(((node or {}).get("status", {}).get("allocatable") or {}).get(resource))
    return float(amount) if amount else None


def _fresh(sample: Sample | None, view: ClusterView, now: float) -> Sample | None:
    return sample if sample is not None and sample.is_fresh(now=now, stale_after=view.stale_after) else None


def _left_on(node: Object | None, sample: Sample) -> int | None:
    total = allocatable(node, "memory")
    return None if total is None else max(0, int(total) - sample.memory_bytes)


def _cautious(memory: MemoryState | None, *, left: int | None, server: int | None) -> MemoryState | None:
    if left is None and server is None:
        return memory
    if memory is None:
        # Samples were checked for freshness here, by their own limit.
        return MemoryState(limit_bytes=None, working_set_bytes=server, node_available_bytes=left, age_seconds=0.0)
    used = [amount for amount in (memory.working_set_bytes, server) if amount is not None]
    return replace(memory, working_set_bytes=max(used, default=None), node_available_bytes=left)


def _others_percent(node: Object | None, sample: Sample | None, pod: PodSample | None) -> float | None:
    """CPU use of everything but the pod; unknown without the pod's own sample."""
    cores = allocatable(node, "cpu")
    if cores is None or sample is None or pod is None:
        return None
    return min(100.0, max(0.0, 100.0 * (sample.cpu_cores - pod.total.cpu_cores) / cores))
