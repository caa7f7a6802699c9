"""Pair swaps: units of two workers change places where that lowers the exact joint loss at the keep in use.

Restructuring weighs columns one by one, yet what a worker lacks is replaced by what it has. The exact loss of lacking
the columns D, with all others re-fitted, is ``tr(W_D^T [(A^-1)_DD]^-1 W_D)``; each swap is judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgefolio.errors import EdgefolioError
from edgefolio_pruner.refit import regularised_quadratic
from edgefolio_pruner.split.channels.statistics import ReaderStatistics, Survey
from edgefolio_pruner.split.exchanges.points import Divided

__all__ = ["Swapped", "swap_units"]

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: Ridge of the exact loss, as that of the selection.
RIDGE = 1e-4
#: Multiplications that all trials together may cost: about ten seconds on one core.
PRODUCTS = 1e11
MOST_TRIALS = 4000


@dataclass(frozen=True, eq=False)
class Swapped:
    """The owners after the swaps, and the exact loss before and after; ``trials`` were judged."""

    owner: Integers
    before: float
    after: float
    trials: int


@dataclass(frozen=True, eq=False)
class _Reader:
    """Inverse curvature and optimum of one reader, and of each block and output what it costs alone."""

    inverse: torch.Tensor
    weights: torch.Tensor
    alone: NDArray[np.float64]
    columns: Integers
    row_units: Integers

    @classmethod
    def of(cls, reader: ReaderStatistics) -> _Reader:
        form = regularised_quadratic(reader.moments, prior=reader.prior, ridge=RIDGE, intercept=True)
        factor = torch.linalg.cholesky(form.curvature)
        inverse = torch.cholesky_inverse(factor)
        weights = torch.cholesky_solve(form.linear, factor) / (reader.variance * max(1, reader.moments.rows)) ** 0.5
        columns = torch.from_numpy(reader.columns)
        squares = inverse[columns[:, :, None], columns[:, None, :]]
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(squares), weights[columns], upper=False)
        return cls(inverse, weights, whitened.square().sum(1).numpy(), reader.columns, reader.row_units)

    def loss(self, rows: Mask, lacking: Mask) -> float:
        """What the outputs ``rows`` lose without the blocks ``lacking``."""
        if not rows.any() or not lacking.any():
            return 0.0
        columns = torch.from_numpy(self.columns[lacking].ravel())
        weights = self.weights[columns][:, torch.from_numpy(np.flatnonzero(rows))]
        factor = torch.linalg.cholesky(self.inverse[columns][:, columns])
        return float(torch.linalg.solve_triangular(factor, weights, upper=False).square().sum())


@dataclass(frozen=True, eq=False)
class _Point:
    readers: tuple[_Reader, ...]
    block_units: Integers
    #: How many blocks of others each worker is sent.
    sent: Integers

    def loss(self, owner: Integers, worker: int) -> float:
        rows = [owner[reader.row_units] == worker for reader in self.readers]
        lacking = owner[self.block_units] != worker
        if self.sent[worker]:
            alone = sum(reader.alone[:, mine].sum(1) for reader, mine in zip(self.readers, rows, strict=True))
            worth = np.where(lacking, alone, -1.0)
            lacking = lacking.copy()
            lacking[np.argsort(-worth, kind="stable")[: self.sent[worker]]] = False
        return sum(reader.loss(mine, lacking) for reader, mine in zip(self.readers, rows, strict=True))

    def cost(self) -> float:
        return sum((reader.inverse.shape[0] * 0.6) ** 3 for reader in self.readers)


def swap_units(
    divided: Divided, survey: Survey, owner: Integers, sent: list[Mask], *, workers: int, seed: int
) -> Swapped:
    """Try swaps in a fixed random order, and keep each that lowers the loss; ``sent`` [worker, block] by exchange.

    Exchanges whose readers are too wide to invert, or have too few rows, are left out of the loss.
    """
    points = [
        _Point(tuple(_Reader.of(reader) for reader in exchange.readers), exchange.point.block_units, send.sum(1))
        for exchange, send in zip(survey.exchanges, sent, strict=True)
        if all(reader.is_exact for reader in exchange.readers)
    ]
    owner = owner.copy()
    losses = [[point.loss(owner, worker) for worker in range(workers)] for point in points]
    before = _total(losses)
    touched = {family.name: _touched(points, family.units) for family in divided.families}
    families = [family for family in divided.families if touched[family.name]]
    if not families or workers < 2:
        return Swapped(owner, before, before, 0)
    generator = np.random.default_rng(seed)
    left, trials, current = PRODUCTS, 0, before
    while left > 0 and trials < MOST_TRIALS:
        family = families[int(generator.integers(len(families)))]
        first, second = (int(unit) for unit in generator.choice(family.units, 2, replace=False))
        trials += 1
        pair = (int(owner[first]), int(owner[second]))
        if pair[0] == pair[1]:
            continue
        owner[[first, second]] = owner[[second, first]]
        numbers = touched[family.name]
        tried = {number: [points[number].loss(owner, worker) for worker in pair] for number in numbers}
        left -= 2 * sum(points[number].cost() for number in numbers)
        change = sum(sum(values) - sum(losses[number][worker] for worker in pair) for number, values in tried.items())
        if change < -1e-9 * current:
            for number, values in tried.items():
                for worker, value in zip(pair, values, strict=True):
                    losses[number][worker] = value
            risen = _total(losses)
            if risen > current:
                raise EdgefolioError(f"The joint loss rose from {current} to {risen} by a swap.")
            current = risen
        else:
            owner[[first, second]] = owner[[second, first]]
    return Swapped(owner, before, current, trials)


def _total(losses: list[list[float]]) -> float:
    return sum(sum(values) for values in losses)


def _touched(points: list[_Point], units: Integers) -> list[int]:
    return [
        number
        for number, point in enumerate(points)
        if np.isin(point.block_units, units).any()
        or any(np.isin(reader.row_units, units).any() for reader in point.readers)
    ]
