"""Plans before they are made: how a network is to be divided, and what that is expected to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgefolio.records.split_plan import Layout

__all__ = ["PlanSpec"]


@dataclass(frozen=True, kw_only=True)
class PlanSpec:
    """One plan: by rows until ``rows_until``, without the exchanges of the ``fused`` values, then by channels.

    ``keeps`` is, by the layer that reads it, the part of each exchange's bytes that may be sent. ``milliseconds`` is
    what the cost model expects for one sample, ``loss`` the parts of layers' variances that are lost, summed up before
    the weights are adjusted one after another.
    """

    layout: Layout
    rows_until: str | None = None
    fused: tuple[str, ...] = ()
    keeps: tuple[tuple[str, float], ...] = ()
    milliseconds: float
    loss: float
    waits: int

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @property
    def key(self) -> dict[str, Any]:
        """What the plan's files depend on, for keys of kept results: not what it is expected to take."""
        return {
            "layout": self.layout,
            "rowsUntil": self.rows_until,
            "fused": list(self.fused),
            "keeps": [list(each) for each in self.keeps],
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> PlanSpec:
        """The spec of a document."""
        keeps = tuple((str(place), float(keep)) for place, keep in document["keeps"])
        return cls(**{**document, "fused": tuple(document["fused"]), "keeps": keeps})
