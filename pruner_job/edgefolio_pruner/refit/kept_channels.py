"""Block-wise optimal brain surgeon: greedy second-order elimination of blocks of columns.

Dropping the columns S and re-fitting all others raises a quadratic loss by exactly ``tr(W_S^T [(A^-1)_SS]^-1 W_S)``
with W the current optimum. After a drop, W and A^-1 of the remaining columns follow by a Schur complement, so a whole
greedy order costs one inverse and one rank-s update per block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from edgefolio_pruner.refit.factor import cholesky
from edgefolio_pruner.refit.moments import MIN_ROWS_PER_COLUMN, Moments
from edgefolio_pruner.refit.quadratic import Quadratic, block_contributions, regularised_quadratic

#: Above this many columns the inverse is too expensive; blocks are then ranked by one factor each.
FULL_SELECTION_COLUMNS = 2304


@dataclass(frozen=True)
class Elimination:
    """Greedy elimination order, with the loss that each drop adds once the remaining columns are re-fitted.

    ``order[i]`` is the i-th block to drop, ``increases[i]`` >= 0 the loss it adds. ``exact`` is false if the blocks
    were ranked by one factor each.
    """

    order: tuple[int, ...]
    increases: tuple[float, ...]
    exact: bool

    def kept(self, dropped: int, blocks: int) -> tuple[int, ...]:
        """The blocks that remain after the first ``dropped`` drops, ascending."""
        dropped_blocks = set(self.order[:dropped])
        return tuple(block for block in range(blocks) if block not in dropped_blocks)


@dataclass(frozen=True, eq=False)
class SelectionPart:
    """One map's part in a selection: the inverse curvature and the optimum, block by block, of its columns.

    ``inverse`` [m * s, m * s] and ``weights`` [m * s, o] stand in the order of the blocks. Columns of the map that
    belong to no block stay; the inverse accounts for them. ``exact`` as in :class:`Elimination`.
    """

    inverse: torch.Tensor
    weights: torch.Tensor
    size: int
    exact: bool

    @classmethod
    def of(
        cls, form: Quadratic, *, blocks: torch.Tensor, output_losses: torch.Tensor | None = None, exact: bool = True
    ) -> SelectionPart:
        """The part of a map with this loss; ``blocks`` [m, s]: the column positions of each block."""
        flat = blocks.reshape(-1)
        if len(set(flat.tolist())) != flat.numel():
            raise ValueError(f"{len(blocks)} blocks of {blocks.shape[1]} columns overlap")
        factor = cholesky(form.curvature)
        inverse = torch.cholesky_inverse(factor)
        weights = torch.cholesky_solve(form.linear, factor)[flat]
        if output_losses is not None:
            weights = weights * output_losses.double().sqrt()
        return cls(inverse=inverse[flat][:, flat], weights=weights, size=blocks.shape[1], exact=exact)


def selection_parts(
    moments: Moments,
    *,
    prior: torch.Tensor,
    blocks: torch.Tensor,
    ridge: float,
    intercept: bool,
    output_losses: Sequence[torch.Tensor],
    full_selection_columns: int = FULL_SELECTION_COLUMNS,
    min_rows_per_column: float = MIN_ROWS_PER_COLUMN,
) -> tuple[SelectionPart, ...]:
    """The part of a map in the selection of ``blocks``: exact, or by one factor per block.

    Exact where there are enough rows and not too many columns. Otherwise by one factor per block: on the fitted weights
    if the map is only too wide, on ``prior`` (the weights before, [d, o]) if there are so few rows that any few columns
    can replace all others. One part for each of ``output_losses`` [o]: what a squared error of each output costs.
    """
    form = regularised_quadratic(moments, prior=prior, ridge=ridge, intercept=intercept)
    scarce = moments.rows < min_rows_per_column * moments.live_columns(intercept=intercept)
    scales = [losses.double().sqrt() for losses in output_losses]
    if len(prior) <= full_selection_columns and not scarce:
        part = SelectionPart.of(form, blocks=blocks)
        return tuple(replace(part, weights=part.weights * scale) for scale in scales)
    weights = prior if scarce else form.minimum()
    # Columns outside the blocks keep their weights, so only the rest of the target is left to the factors.
    outside = weights.clone()
    outside[blocks.reshape(-1)] = 0
    rest = form.linear - form.curvature @ outside
    singles = torch.arange(len(blocks)).reshape(-1, 1)
    found: list[SelectionPart] = []
    for scale in scales:
        weighted = Quadratic(form.curvature, rest * scale, form.constant)
        reduced = block_contributions(weighted, weights=weights * scale, blocks=blocks)
        found.append(SelectionPart.of(reduced, blocks=singles, exact=False))
    return tuple(found)


def select_blocks(
    moments: Moments,
    *,
    prior: torch.Tensor,
    blocks: torch.Tensor,
    ridge: float,
    intercept: bool,
    prices: torch.Tensor | None = None,
    candidates: torch.Tensor | None = None,
    minimum_kept: int = 1,
    full_selection_columns: int = FULL_SELECTION_COLUMNS,
    min_rows_per_column: float = MIN_ROWS_PER_COLUMN,
) -> Elimination:
    """Elimination order of the blocks of one map, from its moments."""
    parts = selection_parts(
        moments,
        prior=prior,
        blocks=blocks,
        ridge=ridge,
        intercept=intercept,
        output_losses=[torch.ones(prior.shape[1], dtype=torch.float64)],
        full_selection_columns=full_selection_columns,
        min_rows_per_column=min_rows_per_column,
    )
    return eliminate_jointly(parts, prices=prices, candidates=candidates, minimum_kept=minimum_kept)


def eliminate_blocks(
    quadratic: Quadratic,
    *,
    blocks: torch.Tensor,
    prices: torch.Tensor | None = None,
    candidates: torch.Tensor | None = None,
    minimum_kept: int = 1,
) -> Elimination:
    """Elimination order of the blocks of one quadratic form; ``blocks`` [m, s]: the column positions of each block."""
    part = SelectionPart.of(quadratic, blocks=blocks)
    return eliminate_jointly([part], prices=prices, candidates=candidates, minimum_kept=minimum_kept)


def eliminate_jointly(
    parts: Sequence[SelectionPart],
    *,
    prices: torch.Tensor | None = None,
    candidates: torch.Tensor | None = None,
    minimum_kept: int = 1,
) -> Elimination:
    """Greedy elimination of blocks that several maps read: drop what adds the least loss to all, update, repeat.

    Block ``c`` of every part is the same channel. ``prices`` [m]: what dropping a block saves (bytes,
    multiply-accumulates); equal if None. ``candidates`` [m] bool: blocks that may be dropped (all if None). Stops when
    only ``minimum_kept`` blocks or no candidates remain.
    """
    number = len(parts[0].weights) // parts[0].size
    states = [_Elimination(part) for part in parts]
    saved = torch.ones(number, dtype=torch.float64) if prices is None else prices.double()
    allowed = torch.ones(number, dtype=torch.bool) if candidates is None else candidates.clone()
    order: list[int] = []
    increases: list[float] = []
    while number - len(order) > minimum_kept and bool(allowed.any()):
        costs = torch.stack([state.costs() for state in states]).sum(0)
        labels, alive = states[0].labels, states[0].alive
        score = torch.where(allowed[labels] & alive, costs / saved[labels], torch.inf)
        position = int(score.argmin())
        label = int(labels[position])
        order.append(label)
        increases.append(max(0.0, float(costs[position])))
        allowed[label] = False
        for state in states:
            state.drop(position)
    return Elimination(order=tuple(order), increases=tuple(increases), exact=all(part.exact for part in parts))


class _Elimination:
    """Current optimum and inverse; dropped blocks stay as identities until a quarter of the blocks is dropped."""

    def __init__(self, part: SelectionPart) -> None:
        self.inverse = part.inverse.clone()
        self.weights = part.weights.clone()
        self.size = part.size
        self.labels = torch.arange(len(part.weights) // part.size)
        self.alive = torch.ones(len(self.labels), dtype=torch.bool)

    def costs(self) -> torch.Tensor:
        """What dropping each block would add to the loss [blocks held]."""
        number, size = len(self.labels), self.size
        if size == 1:
            single: torch.Tensor = self.weights.square().sum(1) / self.inverse.diagonal()
            return single
        squares = self.inverse.view(number, size, number, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        factors = cholesky(squares)
        whitened = torch.linalg.solve_triangular(factors, self.weights.view(number, size, -1), upper=False)
        costs: torch.Tensor = whitened.square().sum((1, 2))
        return costs

    def drop(self, position: int) -> None:
        """Remove one block: Schur complement of the inverse, and the optimum without it."""
        span = slice(position * self.size, (position + 1) * self.size)
        rows = self.inverse[:, span].clone()
        factor = cholesky(self.inverse[span, span])
        half = torch.linalg.solve_triangular(factor, rows.T, upper=False)
        shift = torch.linalg.solve_triangular(factor, self.weights[span], upper=False)
        self.inverse.addmm_(half.T, half, alpha=-1)
        self.weights.addmm_(half.T, shift, alpha=-1)
        # The block's remainder is rounding; exact zeros and an identity keep later factors well conditioned.
        self.inverse[span] = 0
        self.inverse[:, span] = 0
        self.inverse[span, span] = torch.eye(self.size, dtype=torch.float64)
        self.weights[span] = 0
        self.alive[position] = False
        if 4 * int(self.alive.sum()) <= 3 * len(self.labels):
            self._compact()

    def _compact(self) -> None:
        kept = self.alive.nonzero()[:, 0]
        columns = (kept[:, None] * self.size + torch.arange(self.size)).reshape(-1)
        self.inverse = self.inverse[columns][:, columns].contiguous()
        self.weights = self.weights[columns].contiguous()
        self.labels = self.labels[kept]
        self.alive = torch.ones(len(kept), dtype=torch.bool)
