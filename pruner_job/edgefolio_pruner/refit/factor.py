"""Cholesky factors of matrices that may be singular: calibration data can be constant, and weights zero."""

from __future__ import annotations

import torch

#: Added to the diagonal, in units of its mean, until the matrix has a factor.
_SHIFTS = (1e-13, 1e-11, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1)


class NotFiniteError(ArithmeticError):
    """Sums over calibration data hold values that are not finite."""


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    """The lower factor of a symmetric ``matrix`` [..., d, d]; of one that is not positive definite, of one near it.

    Raises :class:`NotFiniteError` for NaN and infinity.
    """
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not bool(failed.any()):
        return factor
    if not bool(torch.isfinite(matrix).all()):
        raise NotFiniteError("a matrix of calibration sums is not finite")
    size = matrix.diagonal(dim1=-2, dim2=-1).abs().mean(-1).clamp_min(torch.finfo(matrix.dtype).tiny * 1e16)
    unit = size[..., None, None] * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    for shift in _SHIFTS:
        factor, failed = torch.linalg.cholesky_ex(matrix + shift * unit)
        if not bool(failed.any()):
            return factor
    # Nothing can be told from it: all directions alike.
    return unit.sqrt()
