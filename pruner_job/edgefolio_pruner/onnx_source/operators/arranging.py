"""Operators that arrange, join and cut tensors, or tell their sizes; of sizes alone they compute with integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgefolio_pruner.onnx_source.graph import Array, Node
from edgefolio_pruner.onnx_source.operators import host
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value, axes_of, integers, number, plain, tensor_of

__all__ = ["OPERATORS", "REPEATED", "target_sizes"]

#: Attribute of a Concat whose batch was freed: the batch axis, a part that has it, and those repeated along it.
REPEATED = "repeated along the batch"
_SAME_REMEDY = "Export the network again, without this operator or with constant settings."


def _shape(node: Node, value: Value) -> Array:
    sizes = list(value.shape)
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return host.of_sizes(sizes[start:end])


def _size(_node: Node, value: Value) -> Array:
    total: Any = 1
    for size in value.shape:
        total = total * size
    return host.of_sizes([total]).reshape(())


def target_sizes(node: Node, shape: Any, given: Value | None) -> list[Any]:
    """The sizes that a Reshape asks for, where 0 stands for a size that stays."""
    wanted = list(node.attributes["shape"]) if given is None else integers(node, given, "sizes")
    if node.attributes.get("allowzero", 0):
        return wanted
    return [shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(wanted)]


def _reshape(node: Node, value: torch.Tensor, shape: Value | None = None) -> torch.Tensor:
    return value.reshape(target_sizes(node, value.shape, shape))


def _host_reshape(node: Node, value: Array, shape: Array | None = None) -> Array:
    return value.reshape(target_sizes(node, value.shape, shape))


def _flatten(node: Node, value: torch.Tensor) -> torch.Tensor:
    axis = node.attributes.get("axis", 1) % (value.ndim + 1)
    if axis == 1:
        return value.flatten(1) if value.ndim > 1 else value.reshape(-1, 1)
    lead: Any = 1
    for size in value.shape[:axis]:
        lead = lead * size
    return value.reshape(lead, -1)


def _transpose(node: Node, value: torch.Tensor) -> torch.Tensor:
    return value.permute(node.attributes.get("perm", list(range(value.ndim))[::-1]))


def _host_transpose(node: Node, value: Array) -> Array:
    return value.transpose(node.attributes.get("perm"))


def _squeezed_axes(node: Node, value: Value, axes: Value | None) -> list[int]:
    given = axes_of(node, axes)
    if given is None:
        # The batch may be one by chance.
        return [axis for axis in range(1, value.ndim) if isinstance(value.shape[axis], int) and value.shape[axis] == 1]
    return sorted(axis % value.ndim for axis in given)


def _squeeze(node: Node, value: torch.Tensor, axes: Value | None = None) -> torch.Tensor:
    return value.squeeze(_squeezed_axes(node, value, axes))


def _host_squeeze(node: Node, value: Array, axes: Array | None = None) -> Array:
    given = axes_of(node, axes)
    return np.squeeze(value, None if given is None else tuple(given))


def _unsqueezed_axes(node: Node, value: Value, axes: Value | None) -> list[int]:
    given = axes_of(node, axes)
    if given is None:
        raise node.refused("names no axes", remedy=_SAME_REMEDY)
    return sorted(axis % (value.ndim + len(given)) for axis in given)


def _unsqueeze(node: Node, value: torch.Tensor, axes: Value | None = None) -> torch.Tensor:
    for axis in _unsqueezed_axes(node, value, axes):
        value = value.unsqueeze(axis)
    return value


def _host_unsqueeze(node: Node, value: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(value, tuple(_unsqueezed_axes(node, value, axes)))


def _concat(node: Node, *given: Value) -> torch.Tensor:
    like = next(value for value in given if isinstance(value, torch.Tensor))
    parts = [tensor_of(value, like) for value in given]
    if REPEATED in node.attributes:
        axis, first, places = node.attributes[REPEATED]
        size = parts[first].shape[axis]
        for place in places:
            parts[place] = parts[place].expand(*[size if at == axis else -1 for at in range(parts[place].ndim)])
    return torch.cat(parts, dim=node.attributes["axis"])


def _host_concat(node: Node, *given: Array) -> Array:
    host.require_small(node, [sum(value.size for value in given)])
    return np.concatenate(given, axis=node.attributes["axis"])


def _ranges(node: Node, rank: int, *given: Value | None) -> list[tuple[int, Any, Any, int]]:
    """Axis, start, end and step of each cut."""
    if "starts" in node.attributes:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
        axes, steps = node.attributes.get("axes"), None
    else:
        starts, ends = (integers(node, value, "bounds") for value in given[:2])
        axes = integers(node, given[2], "axes") if len(given) > 2 and given[2] is not None else None
        steps = integers(node, given[3], "steps") if len(given) > 3 and given[3] is not None else None
    axes = list(range(len(starts))) if axes is None else [axis % rank for axis in axes]
    return list(zip(axes, starts, ends, steps or [1] * len(starts), strict=True))


def _slice(node: Node, value: torch.Tensor, *given: Value | None) -> torch.Tensor:
    for axis, start, end, step in _ranges(node, value.ndim, *given):
        if step < 0:
            if step != -1 or (start not in (-1,) and start < value.shape[axis] - 1) or end > -value.shape[axis]:
                raise node.refused("takes a part of an axis backwards", remedy=_SAME_REMEDY)
            value = value.flip(axis)
        else:
            value = value[(slice(None),) * axis + (slice(start, end, step),)]
    return value


def _host_slice(node: Node, value: Array, *given: Array | None) -> Array:
    for axis, start, end, step in _ranges(node, value.ndim, *given):
        stop = None if step < 0 and end < -value.shape[axis] else end
        value = value[(slice(None),) * axis + (slice(start, stop, step),)]
    return value


def _split(node: Node, value: torch.Tensor, sizes: Value | None = None) -> tuple[torch.Tensor, ...]:
    return torch.split(value, _part_sizes(node, value, sizes), dim=node.attributes.get("axis", 0))


def _part_sizes(node: Node, value: Value, sizes: Value | None) -> list[Any]:
    if "split" in node.attributes:
        return list(node.attributes["split"])
    if sizes is not None:
        return integers(node, sizes, "sizes")
    total, parts = value.shape[node.attributes.get("axis", 0)], len(node.outputs)
    each = -(-total // parts)
    return [each] * (parts - 1) + [total - each * (parts - 1)]


def _host_split(node: Node, value: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    ends = np.cumsum(_part_sizes(node, value, sizes))[:-1]
    return tuple(np.split(value, ends, axis=node.attributes.get("axis", 0)))


def _gather(node: Node, value: Value, index: Value) -> torch.Tensor:
    axis = node.attributes.get("axis", 0)
    if not isinstance(index, np.ndarray) or not isinstance(value, torch.Tensor):
        raise node.refused("looks up a place that the samples name", remedy="Export the part behind the embedding.")
    axis %= value.ndim
    if index.ndim == 0:
        return value.select(axis, number(index))
    size = value.shape[axis]
    places = [one + size if one < 0 else one for one in index.reshape(-1).tolist()]
    if places == list(range(places[0], places[0] + len(places))):
        taken = value[(slice(None),) * axis + (slice(places[0], places[0] + len(places)),)]
    else:
        taken = value.index_select(axis, torch.tensor(places))
    return taken if index.ndim == 1 else taken.reshape(*value.shape[:axis], *index.shape, *value.shape[axis + 1 :])


def _host_gather(node: Node, value: Array, index: Array) -> Array:
    axis = node.attributes.get("axis", 0) % value.ndim
    host.require_small(node, [index.size, *value.shape[:axis], *value.shape[axis + 1 :]])
    return np.asarray(np.take(value, index.astype(np.int64), axis=node.attributes.get("axis", 0)))


def _expand(node: Node, value: Value, shape: Value) -> torch.Tensor:
    wanted = integers(node, shape, "sizes")
    held = value if isinstance(value, torch.Tensor) else tensor_of(value, torch.zeros(()))
    sizes = [1] * (len(wanted) - held.ndim) + list(held.shape)
    wanted = [1] * (len(sizes) - len(wanted)) + wanted
    found = [own if isinstance(size, int) and size == 1 else size for own, size in zip(sizes, wanted, strict=True)]
    return held.expand(found)


def _host_expand(node: Node, value: Array, shape: Array) -> Value:
    if shape.dtype == object:
        return _expand(node, value, shape)
    sizes = np.broadcast_shapes(value.shape, tuple(integers(node, shape, "sizes")))
    host.require_small(node, sizes)
    return np.array(np.broadcast_to(value, sizes))


def _tile(node: Node, value: torch.Tensor, repeats: Value) -> torch.Tensor:
    return value.repeat(integers(node, repeats, "repeats"))


def _host_tile(node: Node, value: Array, repeats: Array) -> Value:
    if repeats.dtype == object:
        return _tile(node, tensor_of(value, torch.zeros(())), repeats)
    counts = integers(node, repeats, "repeats")
    host.require_small(node, [value.size, *counts])
    return np.tile(value, counts)


def _constant_of_shape(node: Node, shape: Array) -> Value:
    filled = node.attributes.get("value", np.zeros(1, dtype=np.float32))
    sizes = integers(node, shape, "sizes")
    if shape.dtype == object:
        return torch.full(sizes, number(filled))
    host.require_small(node, sizes)
    return np.full(sizes, filled.reshape(-1)[0], dtype=filled.dtype)


def _range(node: Node, start: Array, end: Array, step: Array) -> Array:
    first, last, by = (number(value) for value in (start, end, step))
    if not all(isinstance(one, int | float) for one in (first, last, by)) or by == 0:
        raise node.refused("counts to a size that is free", remedy="Export the network with fixed sizes.")
    host.require_small(node, [max(0, int((last - first) / by) + 1)])
    return np.arange(first, last, by, dtype=start.dtype)


def _triangle(node: Node, value: Value, offset: Array | None = None) -> Value:
    by = 0 if offset is None else number(offset)
    upper = node.attributes.get("upper", 1)
    if isinstance(value, np.ndarray):
        return np.triu(value, by) if upper else np.tril(value, by)
    return torch.triu(value, by) if upper else torch.tril(value, by)


def _pad(node: Node, value: torch.Tensor, *given: Value | None) -> torch.Tensor:
    amounts = list(node.attributes["pads"]) if "pads" in node.attributes else integers(node, given[0], "amounts")
    fill: Any = node.attributes.get("value", 0.0)
    if len(given) > 1 and given[1] is not None and isinstance(given[1], np.ndarray):
        fill = number(given[1])
    axes = integers(node, given[2], "axes") if len(given) > 2 and given[2] is not None else list(range(value.ndim))
    half = len(amounts) // 2
    wanted = {axis % value.ndim: (amounts[place], amounts[half + place]) for place, axis in enumerate(axes)}
    padded = {axis: pair for axis, pair in wanted.items() if any(not isinstance(one, int) or one for one in pair)}
    if not padded:
        return value
    mode = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}.get(node.attributes.get("mode", "constant"))
    # torch names the last axis first; modes other than constant leave the first two axes.
    first = min(padded) if mode is None else min(2, min(padded))
    if 0 in padded:
        raise node.refused("pads the batch", remedy=_SAME_REMEDY)
    if mode is not None and min(padded) < 2:
        return _padded_one_by_one(value, padded, mode)
    flat = [one for axis in range(value.ndim - 1, first - 1, -1) for one in padded.get(axis, (0, 0))]
    if mode is None:
        return functional.pad(value, flat, value=float(fill))
    return functional.pad(value, flat, mode=mode)


def _padded_one_by_one(value: torch.Tensor, padded: dict[int, tuple[Any, Any]], mode: str) -> torch.Tensor:
    """Padding of axes among which is that of the channels, each as the last of three."""
    for axis, pair in padded.items():
        moved = value.movedim(axis, -1)
        flat = moved.reshape(moved.shape[0], -1, moved.shape[-1])
        result = functional.pad(flat, pair, mode=mode)
        value = result.reshape(*moved.shape[:-1], result.shape[-1]).movedim(-1, axis)
    return value


def _depth_to_space(node: Node, value: torch.Tensor) -> torch.Tensor:
    factor = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(value, factor)
    batch, channels, height, width = value.shape
    parts = value.reshape(batch, factor, factor, channels // factor**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // factor**2, height * factor, width * factor)


def _space_to_depth(node: Node, value: torch.Tensor) -> torch.Tensor:
    factor = node.attributes["blocksize"]
    batch, channels, height, width = value.shape
    parts = value.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * factor**2, height // factor, width // factor)


OPERATORS: dict[str, Operator] = {
    "Shape": plain(_shape, _shape),
    "Size": plain(_size, _size),
    "Reshape": plain(_reshape, _host_reshape),
    "Flatten": plain(_flatten),
    "Transpose": plain(_transpose, _host_transpose),
    "Squeeze": plain(_squeeze, _host_squeeze),
    "Unsqueeze": plain(_unsqueeze, _host_unsqueeze),
    "Concat": plain(_concat, _host_concat),
    "Slice": plain(_slice, _host_slice),
    "Split": plain(_split, _host_split),
    "Gather": plain(_gather, _host_gather),
    "Expand": plain(_expand, _host_expand),
    "Tile": plain(_tile, _host_tile),
    "ConstantOfShape": plain(host=_constant_of_shape, run=_constant_of_shape),
    "Range": plain(host=_range, run=_range),
    "Trilu": plain(_triangle, _triangle),
    "Pad": plain(_pad),
    "DepthToSpace": plain(_depth_to_space),
    "SpaceToDepth": plain(_space_to_depth),
}
