"""Selection and refit of maps that are too wide for a Gram matrix: one factor per block, one per output.

A Gram matrix of d columns takes 8 d^2 bytes, and the fit holds five: 25,088 columns would take 25 GB. Here nothing is
larger than the weights or a batch of rows.
"""

from __future__ import annotations

import torch

from edgefolio_pruner.refit.kept_channels import SelectionPart
from edgefolio_pruner.refit.quadratic import Quadratic, ridge_strength
from edgefolio_pruner.refit.solve import Refit

#: Widest map that gets a Gram matrix where there is memory enough: five of them take 4 GB.
GRAM_COLUMNS = 10_000
#: Bytes per squared column: five matrices of float64, and as much again is left for other things.
GRAM_BYTES = 2 * 5 * 8
#: Outputs are projected onto so many random directions: the loss of a block is then known to a few percent.
_DIRECTIONS = 64
_COLUMNS_AT_ONCE = 4096
_OUTPUTS_AT_ONCE = 256
_VALUES_AT_ONCE = 1 << 23


class ContributionAccumulator:
    """Sums of what each block contributes to the outputs, batch by batch.

    The form is that of :func:`~edgefolio_pruner.refit.quadratic.block_contributions` on the map's old weights, of
    outputs projected onto random directions.
    """

    def __init__(self, weights: torch.Tensor, *, blocks: torch.Tensor, output_losses: torch.Tensor, seed: int) -> None:
        """``weights`` [d, o], ``blocks`` [m, s], ``output_losses`` [o]: what a squared error of each output costs."""
        outputs = weights.shape[1]
        number = min(_DIRECTIONS, outputs)
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(outputs, number, generator=generator, dtype=torch.float64) / number**0.5
        if number == outputs:
            directions = torch.eye(number, dtype=torch.float64)
        weighted = output_losses.sqrt()[:, None] * directions
        # Piece by piece: as float64 the weights would be twice what they are.
        projected = torch.cat([piece.double() @ weighted for piece in torch.split(weights, _COLUMNS_AT_ONCE)])
        self._blocks = blocks
        self._weights = projected[blocks.reshape(-1)].reshape(*blocks.shape, number).float()
        self._products = torch.zeros(len(blocks), len(blocks), dtype=torch.float64)
        self._sums = torch.zeros(len(blocks), number, dtype=torch.float64)
        self._rows = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Add rows: ``inputs`` [rows, d]."""
        most = max(1, _VALUES_AT_ONCE // (len(self._blocks) * max(self._blocks.shape[1], self._weights.shape[2])))
        for rows in torch.split(inputs, most):
            self._add(rows)

    def _add(self, inputs: torch.Tensor) -> None:
        by_block = inputs[:, self._blocks.reshape(-1)].reshape(len(inputs), *self._blocks.shape).transpose(0, 1)
        contributions = torch.bmm(by_block, self._weights).double()
        self._sums += contributions.sum(1)
        flat = contributions.flatten(1)
        self._products.addmm_(flat, flat.T)
        self._rows += len(inputs)

    def part(self, *, intercept: bool) -> SelectionPart:
        """The map's part in a selection, per row, ranked by one factor per block."""
        rows = max(1, self._rows)
        curvature = self._products / rows
        if intercept:
            curvature = torch.addmm(curvature, self._sums, self._sums.T, alpha=-1 / rows**2)
        curvature = (curvature + curvature.T) / 2
        linear = curvature.sum(1, keepdim=True)
        curvature.diagonal().add_(ridge_strength(curvature, 1e-10))
        form = Quadratic(curvature=curvature, linear=linear, constant=0.0)
        return SelectionPart.of(form, blocks=torch.arange(len(curvature)).reshape(-1, 1), exact=False)


class ScaleAccumulator:
    """Sums of a map's outputs with its old weights against its targets, for one factor and one offset per output."""

    def __init__(self, weights: torch.Tensor) -> None:
        """``weights`` [d, o]: the old weights of the kept columns."""
        self._weights = weights
        self._rows = [0, 0]
        #: Per part (fit, held out): the sums of y, t, y^2, y t, t^2 over its rows, per output.
        self._sums = torch.zeros(2, 5, weights.shape[1], dtype=torch.float64)

    def add(self, inputs: torch.Tensor, targets: torch.Tensor, *, held_out: bool) -> None:
        """Add rows: ``inputs`` [rows, d] and ``targets`` [rows, o]."""
        rows, wanted = inputs.double(), targets.double()
        found = torch.cat([rows @ piece.double() for piece in torch.split(self._weights, _OUTPUTS_AT_ONCE, 1)], 1)
        self._rows[held_out] += len(inputs)
        for index, values in enumerate((found, wanted, found.square(), found * wanted, wanted.square())):
            self._sums[int(held_out), index] += values.sum(0)

    def factor(self, *, intercept: bool) -> torch.Tensor:
        """The best factor per output [o]."""
        return _scaled(self._sums.sum(0), sum(self._rows), intercept=intercept)[0]

    def refit(self, *, intercept: bool, with_weights: bool = True) -> Refit:
        """The old weights times the best factor (none without ``with_weights``), and the best offset, per output."""
        judge = 1 if self._rows[1] else 0
        trial = _scaled(self._sums[0], self._rows[0], intercept=intercept)
        error, variance = _error(self._sums[judge], self._rows[judge], *trial, intercept=intercept)
        factor, offset = _scaled(self._sums.sum(0), sum(self._rows), intercept=intercept)
        return Refit(
            weights=self._weights * factor.to(self._weights.dtype) if with_weights else self._weights[:0],
            bias=offset,
            method="scale-and-bias",
            ridge=0.0,
            relative_error=error / variance if variance > 0 else error,
            rows=sum(self._rows),
            error=error,
            variance=variance,
        )


def _scaled(sums: torch.Tensor, rows: int, *, intercept: bool) -> tuple[torch.Tensor, torch.Tensor]:
    found, wanted, square, product, _ = sums
    if intercept:
        square, product = square - found.square() / rows, product - found * wanted / rows
    tiny = torch.finfo(torch.float64).tiny
    factor = torch.where(square > 0, product / square.clamp_min(tiny), torch.ones_like(square))
    return factor, (wanted - factor * found) / rows if intercept else torch.zeros_like(factor)


def _error(
    sums: torch.Tensor, rows: int, factor: torch.Tensor, offset: torch.Tensor, *, intercept: bool
) -> tuple[float, float]:
    found, wanted, square, product, target = sums
    error = target - 2 * (factor * product + offset * wanted)
    error = error + factor.square() * square + 2 * factor * offset * found + rows * offset.square()
    variance = target - wanted.square() / rows if intercept else target
    return float(error.clamp_min(0).sum()), float(variance.clamp_min(0).sum())
