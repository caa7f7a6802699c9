"""Resource usage of nodes and pods, and memory reserved for switches."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefolio_operator.cluster_state.resource_usage import Usage
from edgefolio_operator.endpoints.memory_reservations import Reservations


@dataclass(frozen=True, kw_only=True)
class ResourceView:
    """Usage samples, believed for ``stale_after`` seconds, and memory reserved on the nodes concerned."""

    usage: Usage = field(default_factory=Usage)
    stale_after: float = 60.0
    reservations: Reservations = field(default_factory=Reservations)
