"""Numbered positions followed through operators that move data, on small stand-ins for symbolic sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE, shape_of

__all__ = ["Sizes", "follow", "is_movement", "is_scaling"]

_Indices = NDArray[np.int64]
_RESHAPES = ("reshape", "flatten", "unflatten", "unsqueeze", "squeeze")
_MOVEMENTS = (*_RESHAPES, "permute", "transpose", "swapaxes", "t", "select", "slice")


class Sizes:
    """Shapes of a graph's values: as primes for symbolic sizes, and with small numbers instead."""

    def __init__(self, tracing_sizes: Mapping[Any, int]) -> None:
        self._tracing = dict(tracing_sizes)
        self._primes = {prime: 2 + (number > 0) for number, prime in enumerate(self._tracing.values())}

    @property
    def batch(self) -> int:
        """The prime of the first symbol, the batch."""
        return next(iter(self._primes), LARGEST_STATIC_SIZE)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of the node's value."""
        return shape_of(node.meta["val"], self._tracing)

    def small(self, node: fx.Node) -> tuple[int, ...] | None:
        """The shape with 2 or 3 for each symbol; ``None`` if a size is no product of symbols and a number."""
        found = []
        for size in self.shape(node):
            for prime, instead in self._primes.items():
                while size >= LARGEST_STATIC_SIZE and size % prime == 0:
                    size = size // prime * instead
            if size >= LARGEST_STATIC_SIZE:
                return None
            found.append(size)
        return tuple(found)


def is_movement(node: fx.Node) -> bool:
    """Whether :func:`follow` knows the operator."""
    return operator_name(node) in _MOVEMENTS


def is_scaling(node: fx.Node) -> bool:
    """Whether the operator multiplies its first argument by a plain number."""
    plain = len(node.args) == 2 and not node.kwargs and isinstance(node.args[1], (int, float))
    return plain and operator_name(node) in ("mul", "div")


def follow(node: fx.Node, positions: _Indices, sizes: Sizes) -> _Indices | None:
    """Where the operator puts ``positions``; ``None`` if that cannot be told."""
    name = operator_name(node)
    if name in _RESHAPES:
        shape = sizes.small(node)
        return positions.reshape(shape) if shape is not None and int(np.prod(shape)) == positions.size else None
    if name == "permute":
        return positions.transpose(argument(node, "dims"))
    if name == "t":
        return positions.T
    if name in ("transpose", "swapaxes"):
        first, second = argument(node, "dim0", argument(node, "axis0")), argument(node, "dim1", argument(node, "axis1"))
        return positions.swapaxes(first, second)
    axis = argument(node, "dim") % positions.ndim
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if sizes.shape(source)[axis] >= LARGEST_STATIC_SIZE:
        return None
    if name == "select":
        chosen = argument(node, "index")
        return np.take(positions, chosen, axis=axis) if isinstance(chosen, int) else None
    bounds = [argument(node, bound) for bound in ("start", "end", "step")]
    if not all(bound is None or isinstance(bound, int) for bound in bounds):
        return None
    taken: _Indices = positions[(slice(None),) * axis + (slice(*bounds),)]
    return taken
