"""Second moments of calibration rows: all that selection and refit ever see of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: With fewer rows per column a least-squares fit follows the calibration samples, not the data.
MIN_ROWS_PER_COLUMN = 5.0


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
            # In one step: a wide map's Gram matrix is large, and so would be the outer product.
            gram=torch.addr(self.gram, self.input_sum, self.input_sum, alpha=-1 / self.rows),
            cross=torch.addr(self.cross, self.input_sum, self.target_sum, alpha=-1 / self.rows),
            target_square=(self.target_square - self.target_sum.square() / self.rows).clamp_min(0),
        )

    def live_columns(self, *, intercept: bool) -> int:
        """The number of columns that carry anything (with ``intercept``: anything but a constant)."""
        diagonal = self.gram.diagonal()
        if intercept and self.rows:
            # What the subtraction of the mean leaves of a constant column is rounding of the float32 sums.
            return int((diagonal - self.input_sum.square() / self.rows > 1e-6 * diagonal).sum())
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

    def squared_error(self, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Sum over the rows of ``(t - x W - b)^2`` per output [o], for ``weights`` [d, o] and ``bias`` [o]."""
        if self.rows == 0:
            return torch.zeros_like(bias)
        about = self.centred()
        spread = about.target_square - 2 * (weights * about.cross).sum(0) + (weights * (about.gram @ weights)).sum(0)
        offset = (self.target_sum - self.input_sum @ weights) / self.rows - bias
        return (spread + self.rows * offset.square()).clamp_min(0)


class MomentAccumulator:
    """Adds up moments batch by batch: products in float32 (the speed), read out as float64 (the solves)."""

    def __init__(self, *, columns: int, outputs: int) -> None:
        self._rows = 0
        self._input_sum = torch.zeros(columns, dtype=torch.float64)
        self._target_sum = torch.zeros(outputs, dtype=torch.float64)
        self._target_square = torch.zeros(outputs, dtype=torch.float64)
        self._gram = torch.zeros(columns, columns)
        self._cross = torch.zeros(columns, outputs)

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add rows: ``inputs`` [rows, d] and ``targets`` [rows, o], float32."""
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} rows of inputs, {len(targets)} rows of targets")
        if len(inputs) == 0:
            return
        self._rows += len(inputs)
        self._input_sum += inputs.sum(0, dtype=torch.float64)
        self._target_sum += targets.sum(0, dtype=torch.float64)
        self._target_square += targets.square().sum(0, dtype=torch.float64)
        self._gram.addmm_(inputs.T, inputs)
        self._cross.addmm_(inputs.T, targets)

    def moments(self) -> Moments:
        """What was added so far, in float64; the Gram matrix made exactly symmetric."""
        gram = self._gram.double()
        return Moments(
            rows=self._rows,
            input_sum=self._input_sum.clone(),
            target_sum=self._target_sum.clone(),
            gram=(gram + gram.T).div_(2),
            cross=self._cross.double(),
            target_square=self._target_square.clone(),
        )


@dataclass(frozen=True)
class SplitMoments:
    """Moments of the rows to fit on and of the held-out rows that choose the ridge and measure the error.

    Split by sample, not by row: positions of one image resemble each other, so rows of a seen image prove little.
    """

    fit: Moments
    held_out: Moments

    def total(self) -> Moments:
        """Both parts together."""
        return self.fit + self.held_out
