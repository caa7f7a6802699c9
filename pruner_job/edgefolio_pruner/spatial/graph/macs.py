"""Multiply-accumulate operations per sample."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgefolio_pruner.spatial.graph.capture import CapturedModel

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
    try:
        return _run(module, held, input_shapes, dtype, device="meta")
    except RuntimeError:
        # The module makes tensors of its own on another device; then it runs on zeros.
        return _run(module, held, input_shapes, dtype, device="cpu")


def _run(
    module: torch.nn.Module,
    held: dict[str, torch.Tensor],
    input_shapes: tuple[tuple[int, ...], ...],
    dtype: torch.dtype,
    *,
    device: str,
) -> int:
    weights = {name: value.to(device) for name, value in held.items()}
    inputs = tuple(torch.zeros((1, *shape), dtype=dtype, device=device) for shape in input_shapes)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        torch.func.functional_call(module, weights, inputs)
    return int(counter.get_total_flops()) // 2


def count_parameters(module: torch.nn.Module) -> int:
    """Numbers held in the module's parameters; a tied parameter counts once, running statistics do not."""
    return sum(value.numel() for value in module.parameters())
