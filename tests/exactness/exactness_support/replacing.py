"""Runs of a net in which another function stands in for each of its layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


@contextlib.contextmanager
def replaced_layers(
    names: dict[nn.Module, str], forward: Callable[[nn.Module, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Replace each layer's forward by ``forward`` (which may return ``None`` for its own)."""
    originals = {part: part.forward for part in names}

    def replaced(part: nn.Module) -> Callable[..., torch.Tensor]:
        def call(received: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
            given = forward(part, received)
            return originals[part](received, *rest, **named) if given is None else given

        return call

    try:
        for part in names:
            part.forward = replaced(part)  # type: ignore[method-assign]
        yield
    finally:
        for part in names:
            del part.forward


def output_tensors(outputs: object) -> list[torch.Tensor]:
    """All tensors among what the net gives."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
