"""Search for the plans that are worth making over a link: by rows, by channels, and by rows until a layer.

Every change-over is tried, with the best groups of layers in front of it and all choices of what is sent behind it. Of
what nothing else is expected to beat in time and loss a few are taken, spread evenly from the plans that lose nothing
to the fastest. What they really take and lose is measured later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.program import lower
from edgefolio_pruner.split.cutting import Cut, cuts_of
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.rows.states import row_states
from edgefolio_pruner.split.search.channel_ways import ChannelWays, channel_ways
from edgefolio_pruner.split.search.keeps import choices
from edgefolio_pruner.split.search.layers import LayerTimes
from edgefolio_pruner.split.search.network import Network
from edgefolio_pruner.split.search.row_groups import RowWay, row_ways
from edgefolio_pruner.split.search.spec import PlanSpec

__all__ = ["MOST_PLANS", "Searched", "search"]

#: How many plans of a split are made and measured.
MOST_PLANS = 6
#: By rows nothing is lost, and the fastest counts; the next ones are made because the times are those of single layers.
_MOST_BY_ROWS = 3
#: Rows alone lose nothing, and travel as Float32.
_FLOAT_BYTES = 4
_NO_ROWS = RowWay(fused=(), milliseconds=0.0, waits=0)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The plans to be made, those that lose least first, and what is to be told of others."""

    specs: tuple[PlanSpec, ...]
    notes: tuple[str, ...]


def search(
    captured: CapturedModel,
    shares: Sequence[int],
    *,
    layout: Literal["Auto", "Rows", "Channels"],
    times: Mapping[str, LayerTimes],
    losses: Mapping[str, Sequence[float]],
    network: Network,
    most_waits: int | None = None,
) -> Searched:
    """The plans of a network; ``losses`` at each of the keeps of exchanges, by the layer that reads them.

    ``most_waits`` bounds how often workers wait for each other; where no plan waits so seldom, the one that comes
    nearest is given. Raises :class:`~edgefolio.errors.UserError` if the layout has no plan.
    """
    finder = _Finder(captured, tuple(shares), times, losses, network)
    notes: list[str] = []
    found: list[PlanSpec] = []
    if layout != "Channels":
        try:
            found += finder.by_rows()
        except UserError as error:
            if layout == "Rows":
                raise
            notes.append(f"no plan by rows: {error.problem}")
    if layout != "Rows":
        found += finder.by_channels(most_waits)
    if layout == "Auto":
        for cut in cuts_of(captured):
            found += finder.by_both(cut, most_waits)
    within = [spec for spec in found if most_waits is None or spec.waits <= most_waits]
    if not within:
        within = [min(found, key=lambda spec: (spec.waits, spec.milliseconds))]
    if layout == "Rows":
        specs = sorted(within, key=lambda spec: (spec.milliseconds, spec.fused))[:_MOST_BY_ROWS]
    else:
        specs = _spread(_front(within), MOST_PLANS)
    return Searched(specs=tuple(specs), notes=tuple(notes))


@dataclass(frozen=True)
class _Finder:
    captured: CapturedModel
    shares: tuple[int, ...]
    times: Mapping[str, LayerTimes]
    losses: Mapping[str, Sequence[float]]
    network: Network

    def by_rows(self) -> list[PlanSpec]:
        """All ways by rows."""
        network = Network(**{**vars(self.network), "element_bytes": _FLOAT_BYTES})
        return [
            PlanSpec(layout="Rows", fused=way.fused, milliseconds=way.milliseconds, loss=0.0, waits=way.waits)
            for way in self._rows(self.captured, network)
        ]

    def by_channels(self, most_waits: int | None) -> list[PlanSpec]:
        """All ways by channels from the first layer on."""
        return self._channels(self._ways(self.captured), None, _NO_ROWS, most_waits)

    def by_both(self, cut: Cut, most_waits: int | None) -> list[PlanSpec]:
        """All ways with this change-over; none where one of both parts cannot be divided."""
        try:
            ways, behind = self._rows(cut.before, self.network), self._ways(cut.behind)
        except UserError:
            return []
        return [spec for way in ways for spec in self._channels(behind, cut, way, most_waits)]

    def _rows(self, captured: CapturedModel, network: Network) -> tuple[RowWay, ...]:
        return row_ways(row_states(lower(captured), self.shares, field="--layout"), self.times, network)

    def _channels(self, behind: ChannelWays, cut: Cut | None, before: RowWay, most_waits: int | None) -> list[PlanSpec]:
        left = None if most_waits is None else max(0, most_waits - before.waits)
        return [
            PlanSpec(
                layout="Channels" if cut is None else "RowsThenChannels",
                rows_until=None if cut is None else cut.until,
                fused=before.fused,
                keeps=choice.keeps,
                milliseconds=before.milliseconds + behind.milliseconds + choice.milliseconds,
                loss=choice.loss,
                waits=before.waits + choice.waits,
            )
            for choice in choices(
                behind.exchanges, wait_milliseconds=self.network.round_trip_milliseconds, most_waits=left
            )
        ]

    def _ways(self, captured: CapturedModel) -> ChannelWays:
        return channel_ways(divide(captured), self.shares, self.times, self.losses, self.network)


def _front(found: Sequence[PlanSpec]) -> list[PlanSpec]:
    """The plans that no other beats in time and loss, the fastest first."""
    best: list[PlanSpec] = []
    for spec in sorted(found, key=lambda each: (each.milliseconds, each.loss, each.rows_until or "", each.keeps)):
        if not best or spec.loss < best[-1].loss:
            best.append(spec)
    return best


def _spread(front: Sequence[PlanSpec], most: int) -> list[PlanSpec]:
    """At most so many, the ends among them, as evenly spread over time as can be; what loses least first."""
    if len(front) <= most:
        return list(reversed(front))
    first, last = front[0].milliseconds, front[-1].milliseconds
    taken: dict[int, None] = {0: None, len(front) - 1: None}
    for step in range(1, most - 1):
        wanted = first + (last - first) * step / (most - 1)
        free = [place for place in range(len(front)) if place not in taken]
        taken[min(free, key=lambda place: (abs(front[place].milliseconds - wanted), place))] = None
    return [front[place] for place in sorted(taken, reverse=True)]
