"""Whether all values of a tensor are numbers, without a second tensor of its size."""

from __future__ import annotations

import torch

_SUMMED = (torch.float16, torch.bfloat16, torch.float32)


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no value of ``tensor`` is NaN or infinite."""
    if not tensor.is_floating_point():
        return True
    # A sum in float64 of narrower values is finite if they all are: it cannot overflow.
    if tensor.dtype in _SUMMED:
        return bool(torch.isfinite(tensor.sum(dtype=torch.float64)))
    return bool(torch.isfinite(tensor if tensor.dtype == torch.float64 else tensor.float()).all())
