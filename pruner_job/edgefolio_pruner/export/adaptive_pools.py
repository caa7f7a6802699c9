"""Adaptive pools that ONNX has no operator for, as reductions of windows that are known: the sizes are fixed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["with_plain_pools"]

_ATEN = torch.ops.aten


def with_plain_pools(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """``program`` with adaptive pools that its exporter does not know written out; else it as it is.

    These are pools whose windows differ in size, and means of volumes. One that also tells the places of the largest
    values is left, and refused, if they are read.
    """
    pools = [node for node in program.graph.nodes if node.op == "call_function" and node.target in _POOLS]
    if not any(map(_is_unknown, pools)) or any(map(_is_asked_for_places, pools)):
        return program
    plain: torch.export.ExportedProgram = program.run_decompositions(dict(_POOLS))
    return plain


def _is_unknown(node: fx.Node) -> bool:
    source, sizes = node.args[:2]
    assert isinstance(source, fx.Node)
    assert isinstance(sizes, list | tuple)
    given = source.meta["val"].shape[-len(sizes) :]
    counts = [int(count) for count in sizes]  # type: ignore[arg-type]
    if node.target in _MEANS_OF_VOLUMES:
        return any(count != 1 for count in counts)
    return any(int(size) % count for size, count in zip(given, counts, strict=True))


def _is_asked_for_places(node: fx.Node) -> bool:
    return any(user.target is operator.getitem and user.args[1] == 1 and user.users for user in node.users)


def _windows(size: int, count: int) -> list[tuple[int, int]]:
    """Beginning and end of each of ``count`` windows over ``size`` places, as torch has them."""
    return [(place * size // count, -(-(place + 1) * size // count)) for place in range(count)]


def _pooled(values: Tensor, sizes: Sequence[int], reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """``values`` with its last axes brought to ``sizes``, one after the other."""
    first = values.ndim - len(sizes)
    for number, count in enumerate(sizes):
        axis = first + number
        windows = _windows(int(values.shape[axis]), int(count))
        parts = [reduce(values.narrow(axis, begin, end - begin), axis) for begin, end in windows]
        values = parts[0] if len(parts) == 1 else torch.cat(parts, axis)
    return values


def _largest(values: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    pooled = _pooled(values, sizes, lambda part, axis: part.amax(axis, keepdim=True))
    # Nobody reads where the largest stand.
    return pooled, pooled.new_zeros(pooled.shape, dtype=torch.int64)


def _mean(values: Tensor, sizes: Sequence[int]) -> Tensor:
    return _pooled(values, sizes, lambda part, axis: part.mean(axis, keepdim=True))


_MEANS_OF_VOLUMES = frozenset({_ATEN.adaptive_avg_pool3d.default, _ATEN._adaptive_avg_pool3d.default})
_POOLS: dict[Any, Callable[..., Any]] = {
    _ATEN.adaptive_max_pool1d.default: _largest,
    _ATEN.adaptive_max_pool2d.default: _largest,
    _ATEN.adaptive_max_pool3d.default: _largest,
    **dict.fromkeys(_MEANS_OF_VOLUMES, _mean),
}
