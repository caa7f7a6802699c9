"""Shapes as plain integers, symbolic sizes included.

The batch (and with dynamic size the height and width) is a symbol. Each symbol is given a large prime number of its
own, so that products and quotients of sizes can be compared as integers and two different symbols are never confused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

__all__ = ["LARGEST_STATIC_SIZE", "shape_of", "symbol_sizes"]

#: Sizes from here on are stand-ins for symbols (or products with them).
LARGEST_STATIC_SIZE = 999_983
_PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081, 1_000_099, 1_000_117, 1_000_121, 1_000_133)


def symbol_sizes(graph: fx.Graph) -> dict[Any, int]:
    """A prime for each symbol in the graph's inputs, in the order of appearance."""
    sizes: dict[Any, int] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            for size in value.shape:
                if isinstance(size, torch.SymInt):
                    for symbol in sorted(size.node.expr.free_symbols, key=str):
                        if symbol not in sizes:
                            sizes[symbol] = _PRIMES[len(sizes) % len(_PRIMES)]
    return sizes


def size_of(size: Any, sizes: Mapping[Any, int]) -> int:
    """One size as an integer."""
    if isinstance(size, torch.SymInt):
        expression = size.node.expr
        return sizes[expression] if expression in sizes else int(expression.subs(dict(sizes)))
    return int(size)


def shape_of(value: Any, sizes: Mapping[Any, int]) -> tuple[int, ...]:
    """The shape of a (fake) tensor as integers."""
    return tuple(size_of(size, sizes) for size in value.shape)
