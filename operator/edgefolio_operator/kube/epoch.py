"""Fencing epochs: how a new one is chosen, which must be above all that endpoints were given. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgefolio_operator.kube.objects import Object, annotations_of, part_of
from edgefolio_operator.labels import GROUP

#: Annotation of the Lease: its ``leaseTransitions`` hold 32 bits only.
EPOCH_ANNOTATION = f"{GROUP}/epoch"
#: Half of what a ModelEndpoint may hold. A higher one is no operator's, and must not use all of them up.
LARGEST_EPOCH = 2**52
#: How far above the operators' own epochs an agent's report is believed: a false one must not use all of them up.
BELIEVED_ABOVE = 2**20


@dataclass(frozen=True, kw_only=True)
class SeenEpochs:
    """The highest epoch that operators ordered with, and the highest that agents say they obey."""

    ordered: int = 0
    obeyed: int = 0

    @classmethod
    def of(cls, endpoints: Iterable[Object]) -> SeenEpochs:
        """Those in the specs and statuses of ModelEndpoints."""
        ordered, obeyed = 0, []
        for endpoint in endpoints:
            ordered = max(ordered, _epoch(part_of(endpoint, "spec", "epoch")))
            obeyed.append(_epoch(part_of(endpoint, "status", "observedEpoch")))
        return cls(
            ordered=ordered, obeyed=max((each for each in obeyed if each <= ordered + BELIEVED_ABOVE), default=0)
        )


def epoch_of_lease(lease: Object | None) -> int:
    """The epoch that a Lease holds; 0 if there is none, or it cannot be read."""
    text = annotations_of(lease).get(EPOCH_ANNOTATION) if lease is not None else None
    written = int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 else 0
    return max(_epoch(written), _epoch(part_of(lease or {}, "spec", "leaseTransitions")))


def _epoch(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_EPOCH else 0
