"""Division by rows: each worker computes a band of rows of every map, and receives the rows around it that it needs.

Several layers may share one exchange (fusion, as in DeepThings): in front of a layer that is not exchanged each worker
computes the rows that it needs of its neighbours' bands itself, and the halo of the exchange before is that much wider.
Which rows these are follows from the operators, from the last one backwards. Nothing is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.nodes import operator_name
from edgefolio_pruner.spatial.graph.program import Program, lower
from edgefolio_pruner.split.exchanges.points import ExchangePoint
from edgefolio_pruner.split.rows.bands import Rows, band_edges, hull
from edgefolio_pruner.split.rows.states import WINDOWED, RowStates, State, row_states, windows_of

__all__ = ["RowPlan", "RowTraffic", "plan_rows", "rows_of"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RowTraffic:
    """Which rows of each exchanged map each worker computes, and which it has afterwards."""

    workers: int
    edges: dict[str, tuple[int, ...]]
    kept: dict[str, Mask]

    def owners(self, point: ExchangePoint) -> NDArray[np.int64]:
        """The worker that computes each row."""
        edges = self.edges[point.name]
        found: NDArray[np.int64] = np.repeat(np.arange(self.workers), np.diff(edges)).astype(np.int64)
        return found

    def has(self, point: ExchangePoint, worker: int) -> Mask:
        """Which rows the worker computes."""
        found: Mask = self.owners(point) == worker
        return found

    def keeps(self, point: ExchangePoint, worker: int) -> Mask:
        """Which rows the worker has behind the exchange."""
        found: Mask = self.kept[point.name][worker]
        return found


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A program by rows: the state of each value, and the exchange in front of what reads more than is computed.

    ``computed`` are the rows of each value that each worker computes: its band at an exchange, elsewhere as many as are
    read.
    """

    program: Program
    shares: tuple[int, ...]
    states: dict[fx.Node, State]
    computed: dict[fx.Node, tuple[Rows, ...]]
    points: dict[fx.Node, ExchangePoint]
    traffic: RowTraffic
    depths: dict[str, int]
    gathered: tuple[str, ...]

    def band(self, node: fx.Node, worker: int) -> Rows:
        """The rows of a value that are the worker's own: the bands of all workers are all rows, each once."""
        return _band(self.program, self.shares, node, worker)

    @property
    def halos(self) -> tuple[str, ...]:
        """The values whose exchange could be left out, by :func:`plan_rows`, in the order of the network."""
        return tuple(source.name for source, point in self.points.items() if point.kind == "send")


def plan_rows(
    captured: CapturedModel,
    shares: Sequence[int],
    *,
    fused: Collection[str] = (),
    first_number: int = 0,
    field: str = "--layout",
) -> RowPlan:
    """The plan by rows, without the exchanges of the ``fused`` values (names of :attr:`RowPlan.halos`).

    Exchanges are numbered from ``first_number`` on. Raises :class:`~edgefolio.errors.UserError` if no layer has rows,
    or a map too few of them.
    """
    return rows_of(row_states(lower(captured), shares, field=field), fused=fused, first_number=first_number)


def rows_of(states: RowStates, *, fused: Collection[str] = (), first_number: int = 0) -> RowPlan:
    """As :func:`plan_rows`, of a program whose states are known."""
    program, shares, workers = states.program, states.shares, range(len(states.shares))
    computed: dict[fx.Node, tuple[Rows, ...]] = {}
    needs: dict[fx.Node, tuple[Rows, ...]] = {}
    for node in reversed(program.nodes):
        if states.states.get(node) != "rows":
            continue
        bands = tuple(_band(program, shares, node, worker) for worker in workers)
        wanted = tuple(hull(_reads(states, computed, node, worker)) or bands[worker] for worker in workers)
        is_source = node in states.gathered or any(operator_name(user) in WINDOWED for user in node.users)
        is_within = all(band.holds(rows) for band, rows in zip(bands, wanted, strict=True))
        if is_source and not is_within and (node in states.gathered or node.name not in fused):
            computed[node], needs[node] = bands, wanted
        else:
            computed[node] = wanted
    return _finished(states, computed, needs, first_number)


def _band(program: Program, shares: Sequence[int], node: fx.Node, worker: int) -> Rows:
    edges = band_edges(program.shapes[node][2], shares)
    return Rows(edges[worker], edges[worker + 1])


def _reads(states: RowStates, computed: dict[fx.Node, tuple[Rows, ...]], node: fx.Node, worker: int) -> Iterable[Rows]:
    """The rows of a value that each of its readers takes."""
    size = states.program.shapes[node][2]
    if node in states.gathered:
        yield Rows(0, size)
    for user in node.users:
        state = states.states.get(user)
        if state == "part":
            yield _band(states.program, states.shares, node, worker)
        elif state == "rows" and operator_name(user) in WINDOWED:
            yield windows_of(user, states.program)[0].needs(computed[user][worker], size)[0]
        elif state == "rows":
            yield computed[user][worker]


def _finished(
    states: RowStates,
    computed: dict[fx.Node, tuple[Rows, ...]],
    needs: dict[fx.Node, tuple[Rows, ...]],
    first_number: int,
) -> RowPlan:
    program, shares = states.program, states.shares
    points: dict[fx.Node, ExchangePoint] = {}
    edges_of: dict[str, tuple[int, ...]] = {}
    kept: dict[str, Mask] = {}
    for source in program.nodes:
        if source not in needs:
            continue
        _, channels, rows, columns = program.shapes[source]
        edges = band_edges(rows, shares)
        place = np.arange(rows)
        own = [(place >= first) & (place < last) for first, last in pairwise(edges)]
        read = [(place >= each.start) & (place < each.stop) for each in needs[source]]
        name = f"x{first_number + len(points)}"
        points[source] = ExchangePoint(
            name=name,
            kind="gather" if source in states.gathered else "send",
            source=source,
            node=source,
            axis=2,
            units=np.arange(rows, dtype=np.int64),
            blocks=np.arange(rows, dtype=np.int64),
            elements=channels * columns,
            readers=(),
            place=source.name,
            reason=states.gathered.get(source, ""),
        )
        edges_of[name] = edges
        kept[name] = np.stack([have | need for have, need in zip(own, read, strict=True)])
    return RowPlan(
        program=program,
        shares=shares,
        states=states.states,
        computed=computed,
        points=points,
        traffic=RowTraffic(len(shares), edges_of, kept),
        depths=_depths(program, points),
        gathered=tuple(states.gathered.values()),
    )


def _depths(program: Program, points: dict[fx.Node, ExchangePoint]) -> dict[str, int]:
    """How many exchanges lie on the way up to each, itself counted."""
    depths: dict[fx.Node, int] = {}
    for node in program.nodes:
        depths[node] = max((depths[source] + (source in points) for source in node.all_input_nodes), default=0)
    return {point.name: depths[source] + 1 for source, point in points.items()}
