"""Samples of a network as it is called: one tensor, or one for each of several inputs, the samples on axis 0 of all."""

from __future__ import annotations

import torch

#: What a network is called with.
Samples = torch.Tensor | tuple[torch.Tensor, ...]


def by_input(samples: Samples) -> tuple[torch.Tensor, ...]:
    """One tensor for each input."""
    return (samples,) if isinstance(samples, torch.Tensor) else samples


def count(samples: Samples) -> int:
    """The number of samples."""
    return len(by_input(samples)[0])


def first(samples: Samples, number: int) -> tuple[torch.Tensor, ...]:
    """The first ``number`` samples."""
    return tuple(given[:number] for given in by_input(samples))


def pieces(samples: Samples, size: int) -> list[tuple[torch.Tensor, ...]]:
    """The samples in consecutive pieces of at most ``size``."""
    return list(zip(*(torch.split(given, size) for given in by_input(samples)), strict=True))
