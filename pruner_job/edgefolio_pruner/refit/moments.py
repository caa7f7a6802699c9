"""Second moments of calibration rows, the sufficient statistics of selection and refit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

#: With fewer rows per column a least-squares fit overfits the calibration samples.
MIN_ROWS_PER_COLUMN = 5.0
#: A column whose variance is a smaller part of its mean square is constant: its spread of a hundred-thousandth is what
#: float32 layers leave of equal values (1e-7 a sum); the float64 sums themselves leave 1e-14.
_CONSTANT = 1e-10
#: Columns of the Gram matrix that are computed together. Wider products are faster, but half of each block on the
#: diagonal is computed in vain.
_SLAB_COLUMNS = 128


@dataclass(frozen=True)
class Moments:
    """Sums over ``rows`` rows x (d columns) and targets t (o outputs), all float64.

    ``input_sum`` [d], ``target_sum`` [o], ``gram`` [d, d] = sum x x^T, ``cross`` [d, o] = sum x t^T,
    ``target_square`` [o] = sum t^2.
    """

    rows: int
    input_sum: torch.Tensor
    target_sum: torch.Tensor
    gram: torch.Tensor
    cross: torch.Tensor
    target_square: torch.Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            rows=self.rows + other.rows,
            input_sum=self.input_sum + other.input_sum,
            target_sum=self.target_sum + other.target_sum,
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
            target_square=self.target_square + other.target_square,
        )

    def centred(self) -> Moments:
        """The same moments about the means; fitting these is fitting with a free, unpenalized bias."""
        if self.rows == 0:
            return self
        return Moments(
            rows=self.rows,
            input_sum=torch.zeros_like(self.input_sum),
            target_sum=torch.zeros_like(self.target_sum),
            # In one step: the outer product would take as much memory as the Gram matrix.
            gram=torch.addr(self.gram, self.input_sum, self.input_sum, alpha=-1 / self.rows),
            cross=torch.addr(self.cross, self.input_sum, self.target_sum, alpha=-1 / self.rows),
            target_square=(self.target_square - self.target_sum.square() / self.rows).clamp_min(0),
        )

    def live_columns(self, *, intercept: bool) -> int:
        """The number of columns that are not all zero (with ``intercept``: not constant)."""
        diagonal = self.gram.diagonal()
        if intercept and self.rows:
            return int((diagonal - self.input_sum.square() / self.rows > _CONSTANT * diagonal).sum())
        return int((diagonal > 0).sum())

    def columns(self, kept: torch.Tensor) -> Moments:
        """The moments of some columns only; ``kept`` holds their positions."""
        if torch.equal(kept, torch.arange(len(self.input_sum))):
            return self
        return Moments(
            rows=self.rows,
            input_sum=self.input_sum[kept],
            target_sum=self.target_sum,
            gram=self.gram[kept][:, kept],
            cross=self.cross[kept],
            target_square=self.target_square,
        )

    def outputs(self, rows: torch.Tensor) -> Moments:
        """The moments of some outputs only, with the same Gram matrix; ``rows`` holds their positions."""
        return Moments(
            rows=self.rows,
            input_sum=self.input_sum,
            target_sum=self.target_sum[rows],
            gram=self.gram,
            cross=self.cross[:, rows],
            target_square=self.target_square[rows],
        )

    def with_targets(self, *, cross: torch.Tensor, target_sum: torch.Tensor, target_square: torch.Tensor) -> Moments:
        """The same rows with other targets: no new Gram matrix."""
        return Moments(
            rows=self.rows,
            input_sum=self.input_sum,
            target_sum=target_sum,
            gram=self.gram,
            cross=cross,
            target_square=target_square,
        )

    def squared_error(self, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Sum over the rows of ``(t - x W - b)^2`` per output [o], for ``weights`` [d, o] and ``bias`` [o]."""
        if self.rows == 0:
            return torch.zeros_like(bias)
        about = self.centred()
        spread = about.target_square - 2 * (weights * about.cross).sum(0) + (weights * (about.gram @ weights)).sum(0)
        offset = (self.target_sum - self.input_sum @ weights) / self.rows - bias
        return (spread + self.rows * offset.square()).clamp_min(0)


class MomentAccumulator:
    """Sums second moments batch by batch, in float64: errors are small differences of large sums.

    Of the symmetric Gram matrix only the upper half is summed, so that float64 costs about as much as all of it in
    float32 would (``docs/decisions/sums-in-float64.md``).
    """

    def __init__(self, *, columns: int, outputs: int) -> None:
        self._rows = 0
        self._input_sum = torch.zeros(columns, dtype=torch.float64)
        self._target_sum = torch.zeros(outputs, dtype=torch.float64)
        self._target_square = torch.zeros(outputs, dtype=torch.float64)
        self._gram = torch.zeros(columns, columns, dtype=torch.float64)
        self._cross = torch.zeros(columns, outputs, dtype=torch.float64)

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add rows: ``inputs`` [rows, d] and ``targets`` [rows, o]."""
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} rows of inputs, {len(targets)} rows of targets")
        if len(inputs) == 0:
            return
        inputs, targets = inputs.double(), targets.double()
        self._rows += len(inputs)
        self._input_sum += inputs.sum(0)
        self._target_sum += targets.sum(0)
        self._target_square += targets.square().sum(0)
        self._cross.addmm_(inputs.T, targets)
        for start, stop in _slabs(inputs.shape[1]):
            self._gram[start:stop, start:].addmm_(inputs[:, start:stop].T, inputs[:, start:])

    def moments(self) -> Moments:
        """The moments so far; the Gram matrix is exactly symmetric."""
        gram = self._gram.clone()
        for start, stop in _slabs(len(gram)):
            gram[start:stop, start:stop] = gram[start:stop, start:stop].triu() + gram[start:stop, start:stop].triu(1).T
            gram[stop:, start:stop] = gram[start:stop, stop:].T
        return Moments(
            rows=self._rows,
            input_sum=self._input_sum.clone(),
            target_sum=self._target_sum.clone(),
            gram=gram,
            cross=self._cross.clone(),
            target_square=self._target_square.clone(),
        )


def _slabs(columns: int) -> Iterator[tuple[int, int]]:
    """Start and stop of the slabs of columns."""
    return ((start, min(start + _SLAB_COLUMNS, columns)) for start in range(0, columns, _SLAB_COLUMNS))


@dataclass(frozen=True)
class SplitMoments:
    """Moments of the rows to fit and of the held-out rows, which choose the ridge and measure the error.

    Split by sample, not by row: positions of one image are correlated.
    """

    fit: Moments
    held_out: Moments

    def total(self) -> Moments:
        """Both parts together."""
        return self.fit + self.held_out
