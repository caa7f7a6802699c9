"""Running a module as it is deployed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put every submodule in evaluation mode and give each its own mode back.

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
    """All tensors of a module's result, in the order in which ONNX lists them (tuples, lists and dicts opened)."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
