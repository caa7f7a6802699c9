"""Recognition of attention: projections in, projection out, and all that splits and joins heads becomes one node.

Networks spell attention in many ways: one layer for queries, keys and values or three, heads split by reshapes and
permutations of several orders, ``scaled_dot_product_attention`` or two products with a softmax between them. What all
have in common is a flat value [N, T, heads * width] before and behind. The chain of operators between is followed on
numbered positions; where it does nothing but arrange heads, one node takes its place. Any other attention stays what
it is, and is a barrier.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.nn import functional

from edgefolio_pruner.spatial.graph.capture import hold_constant
from edgefolio_pruner.spatial.graph.movements import Sizes, follow, is_movement, is_scaling
from edgefolio_pruner.spatial.graph.nodes import argument, insert, operator_name
from edgefolio_pruner.spatial.graph.products import fuse_products
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE

__all__ = ["multi_head_attention", "recognize_attention"]

aten = torch.ops.aten
_LARGEST_CHAIN = 1 << 23
_Indices = NDArray[np.int64]


def multi_head_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    heads: int,
    scale: float,
    causal: bool,
) -> torch.Tensor:
    """Attention over flat values: query [N, T, H * D], key [N, S, H * D], value [N, S, H * E]; gives [N, T, H * E]."""
    queries, keys, values = (aten.unflatten.int(flat, 2, [heads, -1]).transpose(1, 2) for flat in (query, key, value))
    joined = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=causal, scale=scale
    )
    return joined.transpose(1, 2).flatten(2)


def recognize_attention(module: fx.GraphModule, tracing_sizes: Mapping[Any, int]) -> None:
    """Replace what can be followed by :func:`multi_head_attention`, in place."""
    sizes = Sizes(tracing_sizes)
    fuse_products(module.graph, sizes)
    for number, node in enumerate(list(module.graph.nodes)):
        if operator_name(node) == "scaled_dot_product_attention":
            _recognize(module, node, sizes, number)
    module.graph.eliminate_dead_code()


@dataclass(frozen=True)
class _Flat:
    """How a flat value [N, T, heads * width] comes from ``root``.

    Its axes are put in ``order``, the channels last; ``offsets`` of them are taken, and ``scalings`` applied.
    """

    root: fx.Node
    order: tuple[int, ...]
    offsets: _Indices
    scalings: tuple[fx.Node, ...]


@dataclass(frozen=True)
class _Joined:
    """The value ``end`` is the flat result with its axes put in ``order`` and then reshaped to ``shape``."""

    end: fx.Node
    order: tuple[int, ...]
    shape: tuple[int, ...]


def _recognize(module: fx.GraphModule, node: fx.Node, sizes: Sizes, number: int) -> None:
    given = [argument(node, name) for name in ("query", "key", "value")]
    if argument(node, "dropout_p") or argument(node, "enable_gqa", False):
        return
    shapes = [sizes.shape(source) for source in given]
    if len({(len(shape), *shape[:-2]) for shape in shapes}) != 1 or len(shapes[0]) not in (3, 4):
        return
    heads = shapes[0][1] if len(shapes[0]) == 4 else 1
    if any(size >= LARGEST_STATIC_SIZE for size in (heads, *(shape[-1] for shape in shapes))):
        return
    flats = [_flat(source, sizes) for source in given]
    joined = _joined(node, heads, sizes)
    if joined is None or any(flat is None for flat in flats):
        return
    inputs = [
        _emit_flat(module, node, flat, shape, f"head_orders.{number}_{name}")
        for flat, shape, name in zip(flats, shapes, ("query", "key", "value"), strict=True)
        if flat is not None
    ]
    scale = argument(node, "scale", None)
    scale = shapes[0][-1] ** -0.5 if scale is None else float(scale)
    causal = bool(argument(node, "is_causal"))
    result = insert(node, multi_head_attention, (*inputs, argument(node, "attn_mask"), heads, scale, causal))
    if joined.order != (0, 1, 2):
        result = insert(node, aten.permute.default, (result, list(joined.order)))
    if sizes.shape(result) != joined.shape:
        wanted = [size if size < LARGEST_STATIC_SIZE else -1 for size in joined.shape]
        result = insert(node, aten.reshape.default, (result, wanted))
    joined.end.replace_all_uses_with(result)
    # Attention counts as random (dropout), so that dead code of it stays unless it is erased.
    last = joined.end
    while last is not node:
        before = last.args[0]
        assert isinstance(before, fx.Node)
        module.graph.erase_node(last)
        last = before
    module.graph.erase_node(node)


def _flat(end: fx.Node, sizes: Sizes) -> _Flat | None:
    """What ``end`` [N, heads, T, width] (or [N, T, width]) is made of; ``None`` if that cannot be followed."""
    steps: list[fx.Node] = []
    first = end
    while (is_movement(first) or is_scaling(first)) and isinstance(first.args[0], fx.Node):
        steps.insert(0, first)
        first = first.args[0]
    for start in range(len(steps) + 1):
        root = end if start == len(steps) else steps[start].args[0]
        assert isinstance(root, fx.Node)
        found = _flat_from(root, steps[start:], sizes)
        if found is not None:
            return found
    return None


def _flat_from(root: fx.Node, steps: list[fx.Node], sizes: Sizes) -> _Flat | None:
    before = sizes.small(root)
    if root.op == "get_attr" or before is None or int(np.prod(before)) > _LARGEST_CHAIN:
        return None
    positions: _Indices | None = np.arange(int(np.prod(before)), dtype=np.int64).reshape(before)
    for step in steps:
        if positions is not None and not is_scaling(step):
            positions = follow(step, positions, sizes)
    if positions is not None and positions.ndim == 3:
        positions = positions[:, None]
    if positions is None or positions.ndim != 4 or positions.size == 0:
        return None
    places = np.unravel_index(positions, before)
    varied = [axis for axis, at in enumerate(places) if (at != at[:, :1, :, :1]).any()]
    axis = varied[0] if varied else len(before) - 1
    offsets: _Indices = places[axis][0, :, 0, :]
    others = [other for other in range(len(before)) if other != axis]
    rows = positions.shape[0] * positions.shape[2]
    if len(varied) > 1 or int(np.prod([before[other] for other in others])) != rows:
        return None
    everything = np.arange(int(np.prod(before)), dtype=np.int64).reshape(before)
    for order in itertools.permutations(others):
        flat = everything.transpose(*order, axis).reshape(positions.shape[0], positions.shape[2], -1)
        if np.array_equal(flat[:, :, offsets].transpose(0, 2, 1, 3), positions):
            return _Flat(root, (*order, axis), offsets.ravel(), tuple(step for step in steps if is_scaling(step)))
    return None


def _emit_flat(module: fx.GraphModule, before: fx.Node, flat: _Flat, shape: tuple[int, ...], name: str) -> fx.Node:
    result = flat.root
    rank = len(flat.order)
    if flat.order != tuple(range(rank)):
        result = insert(before, aten.permute.default, (result, list(flat.order)))
    channels = int(result.meta["val"].shape[-1])
    if rank != 3:
        result = insert(before, aten.reshape.default, (result, [-1, shape[-2], channels]))
    offsets = flat.offsets
    if np.array_equal(offsets, np.arange(offsets[0], offsets[0] + len(offsets))):
        if len(offsets) != channels:
            bounds = (int(offsets[0]), int(offsets[0]) + len(offsets))
            result = insert(before, aten.slice.Tensor, (result, 2, *bounds))
    else:
        held = hold_constant(module, before, name, torch.from_numpy(offsets))
        result = insert(before, aten.index_select.default, (result, 2, held))
    for scaling in flat.scalings:
        result = insert(before, scaling.target, (result, *scaling.args[1:]))  # type: ignore[arg-type]
    return result


def _joined(node: fx.Node, heads: int, sizes: Sizes) -> _Joined | None:
    """Where the heads have come together again: the last such value on the way that nothing else reads."""
    shape = sizes.small(node)
    if shape is None or int(np.prod(shape)) > _LARGEST_CHAIN:
        return None
    flat = (shape[0], shape[-2], heads * shape[-1])
    everything = np.arange(int(np.prod(shape)), dtype=np.int64)
    positions: _Indices | None = everything.reshape(shape[0], shape[-2], heads, shape[-1]).transpose(0, 2, 1, 3)
    assert positions is not None
    positions = positions.reshape(shape)
    found, current = _permuted(node, positions, flat, sizes), node
    while positions is not None and len(current.users) == 1:
        current = next(iter(current.users))
        if not is_movement(current) or operator_name(current) in ("select", "slice", "index_select"):
            break
        positions = follow(current, positions, sizes)
        if positions is not None:
            found = _permuted(current, positions, flat, sizes) or found
    return found


def _permuted(node: fx.Node, positions: _Indices, flat: tuple[int, int, int], sizes: Sizes) -> _Joined | None:
    shape = sizes.shape(node)
    if sum(size >= LARGEST_STATIC_SIZE for size in shape) > 1:
        # A reshape can leave one size to be inferred; without one, the axes of the flat value must be there as such.
        return _Joined(node, (0, 1, 2), shape) if positions.shape == flat and _is_ordered(positions) else None
    everything = np.arange(positions.size, dtype=np.int64).reshape(flat)
    for order in itertools.permutations(range(3)):
        moved = everything.transpose(order)
        lead = int(np.prod(moved.shape[: order.index(2)]))
        whole = any(
            size == flat[2] and int(np.prod(positions.shape[:axis])) == lead
            for axis, size in enumerate(positions.shape)
        )
        if whole and np.array_equal(moved.reshape(positions.shape), positions):
            return _Joined(node, order, shape)
    return None


def _is_ordered(positions: _Indices) -> bool:
    return bool(np.array_equal(positions.ravel(), np.arange(positions.size)))
