"""Multiply-accumulate operations per sample."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from .capture import CapturedModel

__all__ = ["count_macs", "count_parameters"]


def count_macs(model: CapturedModel | torch.nn.Module, input_shapes: tuple[tuple[int, ...], ...] = ()) -> int:
    """Multiply-accumulate operations of convolutions, linear layers and matrix products for one sample.

    ``input_shapes`` (without the batch axis) are needed for a module; a captured model knows its own. The operations
    are counted while the module runs once on tensors without data; elementwise work is not counted.
    """
    if isinstance(model, CapturedModel):
        module: torch.nn.Module = model.graph_module
        input_shapes = model.input_shapes
    else:
        module = model
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    dtype = next((value.dtype for value in held.values() if value.is_floating_point()), torch.get_default_dtype())
    shapes_only = {name: torch.empty_like(value, device="meta") for name, value in held.items()}
    inputs = tuple(torch.empty((1, *shape), dtype=dtype, device="meta") for shape in input_shapes)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        torch.func.functional_call(module, shapes_only, inputs)
    return int(counter.get_total_flops()) // 2


def count_parameters(module: torch.nn.Module) -> int:
    """Numbers held in the module's parameters; a tied parameter counts once, running statistics do not."""
    return sum(value.numel() for value in module.parameters())
