"""Ridge regression of a linear map on its remaining columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from edgefolio_pruner.refit.moments import MIN_ROWS_PER_COLUMN, Moments, SplitMoments
from edgefolio_pruner.refit.quadratic import regularised_quadratic

#: Ridges tried, in units of the mean diagonal of the Gram matrix; the held-out rows choose.
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Refit:
    """The fitted map: ``weights`` [d, o] with zeros at the dropped columns, ``bias`` [o] (zeros without an intercept).

    ``error`` is the squared error on the held-out rows of a fit without them, ``variance`` the target's there,
    ``relative_error`` their ratio; ``ridge`` the one that was chosen (0 for scale-and-bias).
    """

    weights: torch.Tensor
    bias: torch.Tensor
    method: Literal["least-squares", "scale-and-bias"]
    ridge: float
    relative_error: float
    rows: int
    error: float
    variance: float


def refit_columns(
    moments: SplitMoments,
    *,
    prior: torch.Tensor,
    kept: torch.Tensor,
    intercept: bool,
    ridges: Sequence[float] = RIDGES,
    min_rows_per_column: float = MIN_ROWS_PER_COLUMN,
) -> Refit:
    """Fit the columns ``kept`` (positions) to the targets, shrunk towards ``prior`` [d, o], the weights before.

    The ridge is chosen on the held-out rows, then all rows are fitted with it. Below ``min_rows_per_column`` rows per
    live column, each output keeps its old weights and gets one factor and one offset instead.
    """
    fit, held_out = moments.fit.columns(kept), moments.held_out.columns(kept)
    total = fit + held_out
    old = prior[kept]
    method: Literal["least-squares", "scale-and-bias"] = "least-squares"
    if total.rows < min_rows_per_column * total.live_columns(intercept=intercept):
        method = "scale-and-bias"
    candidates = [0.0] if method == "scale-and-bias" else list(ridges)
    judge = held_out if held_out.rows else fit
    best_ridge, best_error = candidates[0], float("inf")
    for ridge in candidates:
        error = float(judge.squared_error(*_solved(fit, old, ridge, method, intercept=intercept)).sum())
        if error < best_error:
            best_ridge, best_error = ridge, error
    part, bias = _solved(total, old, best_ridge, method, intercept=intercept)
    weights = torch.zeros_like(prior)
    weights[kept] = part
    variance = float((judge.centred() if intercept else judge).target_square.sum())
    return Refit(
        weights=weights,
        bias=bias,
        method=method,
        ridge=best_ridge,
        relative_error=best_error / variance if variance > 0 else best_error,
        rows=total.rows,
        error=best_error,
        variance=variance,
    )


def _solved(
    moments: Moments, old: torch.Tensor, ridge: float, method: str, *, intercept: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    if old.numel() == 0:
        weights = old.clone()
    elif method == "scale-and-bias":
        weights = _scaled(moments.centred() if intercept else moments, old)
    else:
        weights = regularised_quadratic(moments, prior=old, ridge=ridge, intercept=intercept).minimum()
    if not intercept or moments.rows == 0:
        return weights, torch.zeros(old.shape[1], dtype=torch.float64)
    return weights, (moments.target_sum - moments.input_sum @ weights) / moments.rows


def _scaled(about: Moments, old: torch.Tensor) -> torch.Tensor:
    """``old`` times the best factor per output; an output without any variance left keeps its weights."""
    variance = (old * (about.gram @ old)).sum(0)
    covariance = (old * about.cross).sum(0)
    factor = torch.where(variance > 0, covariance / variance.clamp_min(torch.finfo(torch.float64).tiny), 1.0)
    return old * factor
