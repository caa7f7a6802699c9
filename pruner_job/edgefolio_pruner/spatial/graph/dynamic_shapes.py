"""Which sizes of a module's inputs torch.export leaves free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim

__all__ = ["dynamic_shapes"]


def dynamic_shapes(module: torch.nn.Module, inputs: Sequence[torch.Tensor], *, free_size: Sequence[bool]) -> Any:
    """``dynamic_shapes`` for torch.export: the batch on axis 0; where ``free_size`` is set, all axes from 2 on."""
    batch = Dim("batch", min=1)
    shapes: list[dict[int, Any]] = []
    for tensor, free in zip(inputs, free_size, strict=True):
        # The range of a size is inferred: a net with strides does not take every small size.
        shapes.append({0: batch, **(dict.fromkeys(range(2, tensor.ndim), Dim.AUTO) if free else {})})
    return tuple(shapes) if not _takes_star(module) else (tuple(shapes),)


def _takes_star(module: torch.nn.Module) -> bool:
    code = getattr(module.forward, "__code__", None)
    # forward(self, *inputs): torch.export wants one entry that holds them all.
    return code is not None and bool(code.co_flags & 0x04) and code.co_argcount <= 1
