"""Restructuring: the assignment of units to workers that makes them need each other least.

The objective is that of the group form: a column that a worker lacks costs what it contributes, one that is sent costs
its bytes, and of both the cheaper counts. Families of channels are re-assigned one after another, each exactly, by the
Hungarian method with replicated slots, so the objective never rises; that is checked here, not only in tests.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from edgefolio.errors import EdgefolioError
from edgefolio_pruner.split.channels.ownership import capacities, contiguous
from edgefolio_pruner.split.channels.statistics import Survey
from edgefolio_pruner.split.exchanges.points import Divided

__all__ = ["Objective", "Restructured", "assign", "restructure"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
_SWEEPS = 60
_PERMUTED = 4
_RANDOM_STARTS = 6


@dataclass(frozen=True, eq=False)
class _Costs:
    """Of one exchange: ``contribution[unit, block]``; of each block its unit, its bytes and the price of sending it."""

    contribution: csr_array
    block_units: Integers
    bytes: Floats
    price: Floats


class Objective:
    """The cost of an owner map at a price per byte, in the unit of the contributions (parts of a layer's variance)."""

    def __init__(self, divided: Divided, survey: Survey) -> None:
        """At an infinite price: nothing is sent."""
        self.units = divided.units
        self._costs: list[_Costs] = []
        for exchange in survey.exchanges:
            blocks = len(exchange.point.block_units)
            total = coo_array((self.units, blocks)).tocsr()
            for reader in exchange.readers:
                # About the mean: every layer takes a new offset.
                energy = (reader.moments.centred().gram.diagonal() / max(1, reader.moments.rows)).numpy()
                worth = reader.prior.numpy() ** 2 * energy[:, None] / reader.variance
                per_block = worth[reader.columns].sum(1)
                rows = np.repeat(reader.row_units[None], blocks, axis=0)
                columns = np.repeat(np.arange(blocks)[:, None], len(reader.row_units), axis=1)
                total = (
                    total
                    + coo_array(
                        (per_block.ravel(), (rows.ravel(), columns.ravel())), shape=(self.units, blocks)
                    ).tocsr()
                )
            size = exchange.block_bytes.astype(np.float64)
            self._costs.append(_Costs(total, exchange.point.block_units, size, np.full(len(size), np.inf)))

    def at_keep(self, keep: float, owner: Integers, workers: int) -> Objective:
        """The same costs at the price at which this part of all bytes would be sent with these owners."""
        worth, sizes = [np.zeros(0)], [np.zeros(0)]
        for costs in self._costs:
            lost = self._needs(costs, owner, workers)
            others = np.ones_like(lost, dtype=bool)
            others[owner[costs.block_units], np.arange(len(costs.block_units))] = False
            worth.append((lost / costs.bytes)[others])
            sizes.append(np.broadcast_to(costs.bytes, lost.shape)[others])
        order = np.argsort(-np.concatenate(worth), kind="stable")
        reached = np.cumsum(np.concatenate(sizes)[order])
        price = np.inf
        if keep >= 1:
            price = 0.0
        elif keep > 0 and len(order):
            place = int(np.searchsorted(reached, keep * reached[-1]))
            price = float(np.concatenate(worth)[order][min(place, len(order) - 1)])
        changed = copy.copy(self)
        changed._costs = [replace(costs, price=_priced(costs.bytes, price)) for costs in self._costs]
        return changed

    def value(self, owner: Integers, workers: int) -> float:
        """The objective."""
        total = 0.0
        for costs in self._costs:
            lost = self._needs(costs, owner, workers)
            cheaper = np.minimum(lost, costs.price)
            own = owner[costs.block_units]
            cheaper[own, np.arange(len(own))] = 0
            total += float(cheaper.sum())
        return total

    def sent(self, owner: Integers, workers: int) -> list[NDArray[np.bool_]]:
        """Of each exchange, [worker, block]: what is cheaper sent than lost."""
        found = []
        for costs in self._costs:
            send = self._needs(costs, owner, workers) > costs.price
            own = owner[costs.block_units]
            send[own, np.arange(len(own))] = False
            found.append(send)
        return found

    def graph(self) -> csr_array:
        """How much units need each other, each exchange scaled to one; symmetric."""
        total = coo_array((self.units, self.units)).tocsr()
        for costs in self._costs:
            entries = costs.contribution.tocoo()
            weight = entries.data.sum()
            if weight > 0:
                pairs = (entries.coords[0], costs.block_units[entries.coords[1]])
                total = total + coo_array((entries.data / weight, pairs), shape=total.shape).tocsr()
        return (total + total.T).tocsr()

    def assignment_costs(self, units: Integers, owner: Integers, workers: int) -> Floats:
        """[unit, worker]: row and column costs of these units while all others and what is sent to them stay."""
        result = np.zeros((len(units), workers))
        place = np.full(self.units, -1, dtype=np.int64)
        place[units] = np.arange(len(units))
        for costs in self._costs:
            lost = self._needs(costs, owner, workers)
            own = owner[costs.block_units]
            missing = lost <= costs.price
            missing[own, np.arange(len(own))] = False
            result += costs.contribution[units] @ missing.T.astype(np.float64)
            cheaper = np.minimum(lost, costs.price)
            mine = np.flatnonzero(place[costs.block_units] >= 0)
            everybody = cheaper[:, mine].sum(0)
            np.add.at(result, place[costs.block_units[mine]], (everybody - cheaper[:, mine]).T)
        return result

    def reads_itself(self, units: Integers) -> bool:
        """Whether some of the units are read by others of them at one exchange."""
        return any(
            bool(np.isin(costs.block_units, units).any()) and costs.contribution[units].nnz > 0 for costs in self._costs
        )

    def _needs(self, costs: _Costs, owner: Integers, workers: int) -> Floats:
        """[worker, block]: what the worker's units lose without the block."""
        mine = np.zeros((workers, self.units))
        mine[owner, np.arange(self.units)] = 1
        result: Floats = np.asarray(mine @ costs.contribution)
        return result


def _priced(sizes: Floats, price: float) -> Floats:
    return np.full(len(sizes), np.inf) if np.isinf(price) else sizes * price


@dataclass(frozen=True, eq=False)
class Restructured:
    """The best owners found, the start they came from, and the objective: before any, and after every sweep."""

    owner: Integers
    start: str
    contiguous_value: float
    values: tuple[float, ...]


def assign(costs: Floats, counts: Sequence[int]) -> Integers:
    """The worker of each unit, ``counts[worker]`` units each, at least cost: Hungarian method with replicated slots."""
    slots = np.repeat(np.arange(len(counts)), counts)
    rows, chosen = linear_sum_assignment(costs[:, slots])
    result = np.empty(len(costs), dtype=np.int64)
    result[rows] = slots[chosen]
    return result


def restructure(divided: Divided, objective: Objective, shares: Sequence[int], *, field: str) -> Restructured:
    """The best owners of several starts, each improved to a fixed point."""
    workers = len(shares)
    counts = [capacities(family, shares, field=field) for family in divided.families]
    first = contiguous(divided, shares, field=field)
    best: Restructured | None = None
    before = objective.value(first, workers)
    for name, start in _starts(divided, objective, shares, counts, first):
        owner, values = _descend(divided, objective, counts, start, workers)
        if best is None or values[-1] < best.values[-1]:
            best = Restructured(owner, name, before, tuple(values))
    assert best is not None
    return best


def _descend(
    divided: Divided, objective: Objective, counts: Sequence[Sequence[int]], owner: Integers, workers: int
) -> tuple[Integers, list[float]]:
    owner = owner.copy()
    values = [objective.value(owner, workers)]
    for _ in range(_SWEEPS):
        before = values[-1]
        for family, count in zip(divided.families, counts, strict=True):
            costs = objective.assignment_costs(family.units, owner, workers)
            proposed = owner.copy()
            proposed[family.units] = assign(costs, count)
            value = objective.value(proposed, workers)
            # A stream that reads itself has costs that depend on its own assignment; then it need not get better.
            if value > values[-1] * (1 + 1e-9) + 1e-12 and not objective.reads_itself(family.units):
                raise EdgefolioError(
                    f"The objective of restructuring rose from {values[-1]} to {value} at layer {family.name}."
                )
            if value < values[-1] - 1e-12 * max(1.0, values[-1]):
                owner = proposed
                values.append(value)
        if values[-1] >= before - 1e-12 * max(1.0, before):
            break
    return owner, values


def _starts(
    divided: Divided,
    objective: Objective,
    shares: Sequence[int],
    counts: Sequence[Sequence[int]],
    first: Integers,
) -> list[tuple[str, Integers]]:
    starts = [("contiguous", first)]
    if len(shares) > 1:
        graph = objective.graph()
        starts.append(("components", _by_components(divided, graph, counts, first, len(shares))))
        for number, label in enumerate(_spectral(graph, shares)):
            starts.append((f"spectral {number}", _fitted(divided, label, counts, first)))
        for seed in range(_RANDOM_STARTS):
            chance = np.random.default_rng(seed).random((divided.units, len(shares)))
            starts.append((f"random {seed}", _fitted(divided, chance, counts, first)))
    return starts


def _fitted(divided: Divided, costs: Floats, counts: Sequence[Sequence[int]], first: Integers) -> Integers:
    """Owners within the capacities, at least total ``costs`` [unit, worker]."""
    owner = first.copy()
    for family, count in zip(divided.families, counts, strict=True):
        owner[family.units] = assign(costs[family.units], count)
    return owner


def _by_components(
    divided: Divided, graph: csr_array, counts: Sequence[Sequence[int]], first: Integers, workers: int
) -> Integers:
    """Units that need each other together, the largest such sets first, each where it fits best."""
    entries = graph.tocoo()
    strong = entries.data > 1e-12 * max(entries.data.max(initial=0.0), 1e-300)
    kept = coo_array((entries.data[strong], (entries.coords[0][strong], entries.coords[1][strong])), shape=graph.shape)
    labels = connected_components(kept, directed=False)[1]
    family_of = np.full(divided.units, -1, dtype=np.int64)
    for number, family in enumerate(divided.families):
        family_of[family.units] = number
    left = np.array(counts, dtype=np.int64)
    preferred = np.zeros(divided.units, dtype=np.int64)
    sizes = np.bincount(labels)
    for label in sorted(range(len(sizes)), key=lambda label: (-sizes[label], label)):
        members = np.flatnonzero((labels == label) & (family_of >= 0))
        if not len(members):
            continue
        need = np.bincount(family_of[members], minlength=len(left))
        short = np.maximum(need[:, None] - left, 0).sum(0)
        room = left.sum(0)
        # Tightest fit first, so that unequal parts find the workers of their size.
        worker = min(range(workers), key=lambda rank: (short[rank], room[rank], rank))
        preferred[members] = worker
        left[:, worker] = np.maximum(left[:, worker] - need, 0)
    costs = np.ones((divided.units, workers))
    costs[np.arange(divided.units), preferred] = 0
    return _fitted(divided, costs, counts, first)


def _spectral(graph: csr_array, shares: Sequence[int]) -> list[Floats]:
    """Distances [unit, worker] to cluster centres in the leading eigenvectors of the normalised graph."""
    workers = len(shares)
    degree = np.asarray(graph.sum(1)).ravel()
    if graph.shape[0] <= workers + 1 or not (degree > 0).any():
        return []
    scale = 1 / np.sqrt(np.where(degree > 0, degree, 1.0))
    normal = graph.multiply(scale[:, None]).multiply(scale[None]).tocsr()
    start = np.random.default_rng(0).standard_normal(graph.shape[0])
    _, vectors = eigsh(normal, k=workers, which="LA", v0=start)
    points = vectors * scale[:, None]
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    points = points / np.where(norms > 0, norms, 1.0)
    centres = _centres(points, workers)
    distance = ((points[:, None] - centres[None]) ** 2).sum(-1)
    if len(set(shares)) == 1 or workers > _PERMUTED:
        return [distance]
    return [distance[:, list(order)] for order in permutations(range(workers))]


def _centres(points: Floats, count: int) -> Floats:
    """Centres of ``count`` clusters: farthest points first, then Lloyd's steps; no chance in it."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(0), axis=1)))]
    while len(chosen) < count:
        nearest = ((points[:, None] - points[chosen][None]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(nearest)))
    centres = points[chosen]
    for _ in range(30):
        labels = ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        centres = np.stack([points[labels == k].mean(0) if (labels == k).any() else centres[k] for k in range(count)])
    return centres
