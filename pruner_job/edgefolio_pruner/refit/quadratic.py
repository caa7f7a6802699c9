"""The squared loss of a linear map as a quadratic form, the input of block selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgefolio_pruner.refit.factor import cholesky
from edgefolio_pruner.refit.moments import Moments


@dataclass(frozen=True)
class Quadratic:
    """``loss(W) = tr(W^T A W) - 2 tr(W^T B) + c`` with A [d, d] positive definite, B [d, o]; float64."""

    curvature: torch.Tensor
    linear: torch.Tensor
    constant: float

    def loss(self, weights: torch.Tensor) -> float:
        """The loss at ``weights`` [d, o]."""
        quadratic = (weights * (self.curvature @ weights)).sum() - 2 * (weights * self.linear).sum()
        return float(quadratic) + self.constant

    def minimum(self) -> torch.Tensor:
        """The weights [d, o] of least loss."""
        factor = cholesky(self.curvature)
        return torch.cholesky_solve(self.linear, factor)


def ridge_strength(gram: torch.Tensor, ridge: float) -> float:
    """``ridge`` times the mean of the diagonal over the columns that are not zero; never zero itself."""
    diagonal = gram.diagonal()
    alive = diagonal > 0
    mean = float(diagonal[alive].mean()) if bool(alive.any()) else 1.0
    return max(ridge * mean, torch.finfo(torch.float64).tiny * 1e16)


def regularised_quadratic(moments: Moments, *, prior: torch.Tensor, ridge: float, intercept: bool) -> Quadratic:
    """Squared error over the rows plus ``ridge * mean(diag G) * ||W - prior||^2``.

    Shrinking towards the map's old weights instead of zero makes a large ridge nearly harmless. With ``intercept``
    the bias is free: it is the moments about the means.
    """
    about = moments.centred() if intercept else moments
    strength = ridge_strength(about.gram, ridge)
    curvature = about.gram.clone() if about is moments else about.gram
    curvature.diagonal().add_(strength)
    return Quadratic(
        curvature=curvature,
        linear=about.cross + strength * prior,
        constant=float(about.target_square.sum()) + strength * float(prior.square().sum()),
    )


def block_contributions(quadratic: Quadratic, *, weights: torch.Tensor, blocks: torch.Tensor) -> Quadratic:
    """The loss as a function of one factor per block: block c contributes ``a_c * x_c W_c``; m factors, one output.

    For maps too wide to invert: its curvature is [m, m] instead of [d, d]. Blocks can replace each other only as a
    whole, not tap by tap, so it overestimates a removal's loss.
    """
    number, size = blocks.shape
    flat = blocks.reshape(-1)
    own = weights[flat]
    curvature = torch.empty(number, number, dtype=torch.float64)
    per_slab = max(1, 4_000_000 // max(1, size * flat.numel()))
    for start in range(0, number, per_slab):
        rows = flat[start * size : (start + per_slab) * size]
        products = quadratic.curvature[rows][:, flat] * (weights[rows] @ own.T)
        curvature[start : start + per_slab] = products.reshape(-1, size, number, size).sum((1, 3))
    linear = (own * quadratic.linear[flat]).reshape(number, -1).sum(1, keepdim=True)
    curvature = (curvature + curvature.T) / 2
    # A block without weights contributes nothing: any positive curvature keeps the form definite and its cost zero.
    curvature.diagonal().add_(ridge_strength(curvature, 1e-10))
    return Quadratic(curvature=curvature, linear=linear, constant=quadratic.constant)
