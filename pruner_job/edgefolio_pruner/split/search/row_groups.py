"""Search for the exchanges that a division by rows does without: dynamic programming over groups of layers.

Between two exchanges a group of layers computes alone. What it costs depends on where it begins and ends: its first
exchange carries the halo that the whole group needs, and its layers compute rows twice. So the best way up to an
exchange is the best way up to an earlier one and the group between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from edgefolio_pruner.split.rows.plan import RowPlan, rows_of
from edgefolio_pruner.split.rows.states import RowStates
from edgefolio_pruner.split.search.layers import LayerTimes, layer_of
from edgefolio_pruner.split.search.network import Network

__all__ = ["RowWay", "row_ways"]

#: Most exchanges that a group leaves out, besides the one that begins with the input.
_LONGEST = 6


@dataclass(frozen=True, kw_only=True)
class RowWay:
    """A division by rows without the exchanges of the ``fused`` values, and what it is expected to take."""

    fused: tuple[str, ...]
    milliseconds: float
    waits: int


@dataclass(frozen=True)
class _Best:
    milliseconds: float
    exchanged: tuple[int, ...]


def row_ways(states: RowStates, times: Mapping[str, LayerTimes], network: Network) -> tuple[RowWay, ...]:
    """For each number of halo exchanges the fastest way, those that no way with fewer of them beats; fewest first."""
    halos = rows_of(states).halos
    position = {node.name: place for place, node in enumerate(states.program.nodes)}
    # Stops: the input, each halo, the end.
    stops = [-1, *(position[name] for name in halos), len(position)]
    best: list[dict[int, _Best]] = [{0: _Best(0.0, ())}, *({} for _ in stops[1:])]
    for end in range(1, len(stops)):
        for start in range(end):
            if start and end - start - 1 > _LONGEST:
                continue
            plan = rows_of(states, fused=halos[start : end - 1])
            cost = _compute(plan, times, first=stops[start] + 1, last=stops[end])
            if start:
                source = states.program.nodes[stops[start]]
                cost += network.round_trip_milliseconds + network.milliseconds(_elements_in(plan, source))
            for count, before in best[start].items():
                now = count + (start > 0)
                chosen = before.exchanged if not start else (*before.exchanged, start - 1)
                found = _Best(before.milliseconds + cost, chosen)
                if now not in best[end] or found.milliseconds < best[end][now].milliseconds:
                    best[end][now] = found
    # Around skips groups are not alone: the two ends are weighed whatever is found between them.
    sets = {
        (): None,
        halos: None,
        **{
            tuple(name for place, name in enumerate(halos) if place not in found.exchanged): None
            for found in best[-1].values()
        },
    }
    weighed = [_way(rows_of(states, fused=fused), fused, times, network) for fused in sets]
    ways: list[RowWay] = []
    for way in sorted(weighed, key=lambda each: (each.waits, each.milliseconds, each.fused)):
        if not ways or way.milliseconds < ways[-1].milliseconds:
            ways.append(way)
    return tuple(ways)


def _way(plan: RowPlan, fused: tuple[str, ...], times: Mapping[str, LayerTimes], network: Network) -> RowWay:
    """The whole of a plan: exchanges of one depth wait together, gathers count too."""
    waits = len(set(plan.depths.values()))
    busiest = max(sum(_received(plan, source, worker) for source in plan.points) for worker in range(len(plan.shares)))
    compute = _compute(plan, times, first=0, last=len(plan.program.nodes))
    total = compute + waits * network.round_trip_milliseconds + network.milliseconds(busiest)
    return RowWay(fused=fused, milliseconds=total, waits=waits)


def _compute(plan: RowPlan, times: Mapping[str, LayerTimes], *, first: int, last: int) -> float:
    """What the layers from one place up to another take the slowest worker."""
    total = 0.0
    for node in plan.program.nodes[first : last + 1]:
        layer = layer_of(node)
        if layer is None or layer not in times:
            continue
        if plan.states[node] == "rows":
            total += times[layer].by_rows(max(len(rows) for rows in plan.computed[node]))
        else:
            total += times[layer].whole
    return total


def _elements_in(plan: RowPlan, source: fx.Node) -> int:
    return max(_received(plan, source, worker) for worker in range(len(plan.shares))) if source in plan.points else 0


def _received(plan: RowPlan, source: fx.Node, worker: int) -> int:
    point = plan.points[source]
    more = plan.traffic.keeps(point, worker) & ~plan.traffic.has(point, worker)
    return point.elements * int(more.sum())
