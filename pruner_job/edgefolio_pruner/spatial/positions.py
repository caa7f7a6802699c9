"""Channel descriptions of tensors, as index arrays.

The channels of a tensor are described by a small array with one axis for each axis of the tensor: of full length where
the channel differs from position to position, of length 1 where it does not. A feature map of shape (N, C, H, W) has a
description of shape (1, C, 1, 1); flattened it becomes (1, C * H * W), each channel repeated H * W times. Operators
that only move data then move the description in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE

__all__ = ["Positions", "UnfollowedError", "collapse", "concatenate", "expand_axis", "reshape"]

Positions = NDArray[np.int64]
_LARGEST_DESCRIPTION = 1 << 23


class UnfollowedError(ValueError):
    """A description that is too large, or of symbolic length."""


def collapse(positions: Positions) -> Positions:
    """The same description with each axis along which nothing changes reduced to length 1."""
    for axis in range(positions.ndim):
        if positions.shape[axis] > 1:
            first = np.take(positions, [0], axis=axis)
            if (positions == first).all():
                positions = first
    return positions


def expand_axis(positions: Positions, axis: int, size: int) -> Positions:
    """The description with full length along ``axis``."""
    if positions.shape[axis] == size:
        return positions
    if size > LARGEST_STATIC_SIZE:
        raise UnfollowedError(f"axis {axis} has no fixed size")
    return np.repeat(positions, size, axis=axis)


def concatenate(parts: Sequence[Positions], sizes: Sequence[int], axis: int) -> Positions:
    """The description of tensors joined along ``axis``, where they have ``sizes``."""
    full = [expand_axis(part, axis, size) for part, size in zip(parts, sizes, strict=True)]
    shape = np.broadcast_shapes(*[(*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in full])
    full = [np.broadcast_to(part, (*shape[:axis], part.shape[axis], *shape[axis + 1 :])) for part in full]
    return np.concatenate(full, axis=axis)


def reshape(positions: Positions, before: Sequence[int], after: Sequence[int]) -> Positions:
    """The description after a tensor of shape ``before`` is reshaped to ``after``."""
    lengths_in: list[int] = list(positions.shape)
    expanded: list[int] = list(lengths_in)
    lengths_out: list[int] = [1] * len(after)
    for axes_in, axes_out in _axis_runs(before, after):
        if all(lengths_in[axis] == 1 for axis in axes_in):
            continue
        for axis in axes_in:
            expanded[axis] = before[axis]
        for axis in axes_out:
            lengths_out[axis] = after[axis]
    total = 1
    for length in expanded:
        total *= length
    if total > _LARGEST_DESCRIPTION:
        raise UnfollowedError("the channels cannot be followed through a reshape")
    return collapse(np.broadcast_to(positions, expanded).reshape(lengths_out))


def _axis_runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest split of both shapes into consecutive runs of axes with equal products."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        axes_in: list[int] = []
        axes_out: list[int] = []
        product_in = product_out = 1
        if i < len(before):
            axes_in.append(i)
            product_in = before[i]
            i += 1
        if j < len(after):
            axes_out.append(j)
            product_out = after[j]
            j += 1
        while product_in != product_out:
            if product_in < product_out and i < len(before):
                product_in *= before[i]
                axes_in.append(i)
                i += 1
            elif product_out < product_in and j < len(after):
                product_out *= after[j]
                axes_out.append(j)
                j += 1
            else:
                raise UnfollowedError("shapes of a reshape do not match")
        runs.append((axes_in, axes_out))
    return runs
