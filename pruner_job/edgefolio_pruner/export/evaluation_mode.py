"""Evaluation mode of modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Set every submodule to evaluation mode and restore each mode afterwards.

    Unlike ``module.eval()`` it also takes modules that torch.export made, which refuse that call.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def flat_outputs(outputs: object) -> list[torch.Tensor]:
    """All tensors of a module's result in ONNX order (tuples, lists and dicts flattened)."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
