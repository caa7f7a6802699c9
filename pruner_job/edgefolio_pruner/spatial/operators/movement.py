"""Roles of operators that move, pool, pad or resize: each channel of the result is a channel of a source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, is_sequence_of_integers, operator_name
from edgefolio_pruner.spatial.positions import Positions, collapse, concatenate, expand_axis, reshape
from edgefolio_pruner.spatial.roles import Constant, Effect, Move
from edgefolio_pruner.spatial.structure import Builder

__all__ = ["RULES"]


def _positions(builder: Builder, source: fx.Node) -> Positions:
    channels = builder.channels[source]
    return np.arange(channels.size, dtype=np.int64).reshape(channels.shape)


def _set_move(
    builder: Builder,
    node: fx.Node,
    index: Positions,
    *,
    sources: tuple[fx.Node, ...] | None = None,
    effect: Effect = Effect.KEEPS,
    padding_value: float = 0.0,
) -> None:
    """``index`` with a leading axis of ways; slots that are joined from several sources become one channel."""
    if sources is None:
        sources = (_source(node),)
    available = np.concatenate([builder.channels[source].ravel() for source in sources])
    taken = available[index]
    result = taken[0]
    if (index < 0).any():
        filled = builder.fresh(*result.shape)
        result = np.where(index[0] < 0, filled, result)
    for way in taken[1:]:
        builder.tie(result, way)
    builder.roles[node] = Move(sources, index, effect, padding_value)
    builder.channels[node] = result


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _keep(builder: Builder, node: fx.Node, effect: Effect = Effect.KEEPS) -> None:
    _set_move(builder, node, _positions(builder, _source(node))[None], effect=effect)


def _spatial(effect: Effect = Effect.KEEPS) -> Callable[[Builder, fx.Node], None]:
    """Operators that act on each channel alone, on all axes but the first two."""

    def rule(builder: Builder, node: fx.Node) -> None:
        channels = builder.channels[_source(node)]
        # A feature map without a batch axis would have its channels first.
        if channels.ndim < 3 or channels.size != channels.shape[1]:
            builder.set_barrier(node, f"operator {node.target} along the axis of the channels")
            return
        _keep(builder, node, effect)

    return rule


def _average_pool(builder: Builder, node: fx.Node) -> None:
    padding = argument(node, "padding")
    padded = any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
    plain = (not padded or not argument(node, "count_include_pad")) and argument(node, "divisor_override") is None
    _spatial(Effect.KEEPS if plain else Effect.KEEPS_ZERO)(builder, node)


def _reshape(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    index = reshape(_positions(builder, source), builder.shape(source), builder.shape(node))
    channels = builder.channels[source].ravel()
    ways = index[None]
    for axis in range(index.ndim):
        taken = channels[ways[0]]
        if taken.shape[axis] > 1 and (taken == np.take(taken, [0], axis=axis)).all():
            # Slots of one channel, such as its places after a flattening, come together again.
            ways = np.expand_dims(
                np.moveaxis(ways, axis + 1, 0).reshape(-1, *np.delete(ways.shape[1:], axis)), axis + 1
            )
    _set_move(builder, node, ways)


def _permute(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    rank = len(builder.shape(source))
    order = list(range(rank))
    name = operator_name(node)
    if name == "permute":
        order = [axis % rank for axis in argument(node, "dims")]
    elif name == "t":
        order = order[::-1]
    else:
        first = argument(node, "dim0", argument(node, "axis0")) % rank
        second = argument(node, "dim1", argument(node, "axis1")) % rank
        order[first], order[second] = second, first
    _set_move(builder, node, _positions(builder, source).transpose(order)[None])


def _slice(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    axis = argument(node, "dim") % len(builder.shape(source))
    positions = _positions(builder, source)
    if positions.shape[axis] > 1:
        start, end, step = argument(node, "start"), argument(node, "end"), argument(node, "step")
        if not all(bound is None or isinstance(bound, int) for bound in (start, end, step)):
            builder.set_barrier(node, f"operator {node.target} with a computed bound")
            return
        positions = positions[(slice(None),) * axis + (slice(start, end, step),)]
    _set_move(builder, node, collapse(positions)[None])


def _select(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    axis = argument(node, "dim") % len(builder.shape(source))
    chosen = argument(node, "index")
    positions = _positions(builder, source)
    if positions.shape[axis] > 1 and not isinstance(chosen, int):
        builder.set_barrier(node, f"operator {node.target} with a computed index")
        return
    _set_move(builder, node, np.take(positions, chosen if positions.shape[axis] > 1 else 0, axis=axis)[None])


def _index_select(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    axis = argument(node, "dim") % len(builder.shape(source))
    chosen = argument(node, "index")
    positions = _positions(builder, source)
    if positions.shape[axis] > 1:
        if not isinstance(chosen, fx.Node) or chosen.op != "get_attr":
            builder.set_barrier(node, f"operator {node.target} with a computed index")
            return
        order = builder.program.constant(chosen).cpu().numpy()
        positions = np.take(positions, order, axis=axis)
    _set_move(builder, node, collapse(positions)[None])


def _cat(builder: Builder, node: fx.Node) -> None:
    given = node.args[0]
    assert isinstance(given, (list, tuple))
    sources = tuple(source for source in given if isinstance(source, fx.Node))
    rank = len(builder.shape(node))
    axis = argument(node, "dim") % rank
    if any(len(builder.shape(source)) != rank for source in sources):
        builder.set_barrier(node, "concatenation with an empty tensor")
        return
    for source in sources:
        _adopt_constant(builder, source, axis)
    parts, sizes, start = [], [], 0
    for source in sources:
        parts.append(_positions(builder, source) + start)
        sizes.append(builder.shape(source)[axis])
        start += parts[-1].size
    varied = [other for part in parts for other in range(rank) if part.shape[other] > 1 and other != axis]
    if varied and all(part.shape[axis] == 1 for part in parts):
        lengths = np.broadcast_shapes(*[part.shape for part in parts])
        if any(part.shape != lengths for part in parts):
            builder.set_barrier(node, "concatenation of unlike tensors")
            return
        _set_move(builder, node, np.stack(parts), sources=sources)
    elif varied:
        builder.set_barrier(node, "concatenation along two axes of channels")
    else:
        _set_move(builder, node, concatenate(parts, sizes, axis)[None], sources=sources)


def _adopt_constant(builder: Builder, source: fx.Node, axis: int) -> None:
    if source.op == "get_attr" and source not in builder.channels:
        shape = builder.shape(source)
        lengths = [1] * len(shape)
        lengths[axis] = shape[axis]
        builder.channels[source] = builder.fresh(*lengths)
        builder.roles[source] = Constant()


def _expand(builder: Builder, node: fx.Node) -> None:
    positions = _positions(builder, _source(node))
    rank = len(builder.shape(node))
    _set_move(builder, node, positions.reshape((1,) * (rank - positions.ndim) + positions.shape)[None])


def _reduce(effect: Effect) -> Callable[[Builder, fx.Node], None]:
    """Reductions over axes along which the channel does not change."""

    def rule(builder: Builder, node: fx.Node) -> None:
        source = _source(node)
        rank = len(builder.shape(source))
        axes = argument(node, "dim")
        axes = [axes] if isinstance(axes, int) else axes
        axes = [axis % rank for axis in axes] if axes else list(range(rank))
        positions = _positions(builder, source)
        varied = [axis for axis in range(rank) if positions.shape[axis] > 1]
        crossed = [axis for axis in axes if axis in varied]
        # Of channels spread over several axes only the last can shrink; over the others they go together anyway.
        if 0 in axes or varied[-1:] == crossed[-1:] != []:
            builder.set_barrier(node, f"operator {node.target} over channels")
            return
        ways = np.moveaxis(positions, crossed, range(len(crossed)))
        ways = ways.reshape(-1, *[1 if axis in crossed else positions.shape[axis] for axis in range(rank)])
        if not argument(node, "keepdim"):
            ways = np.squeeze(ways, axis=tuple(axis + 1 for axis in axes))
        _set_move(builder, node, ways, effect=effect)

    return rule


def _softmax(builder: Builder, node: fx.Node) -> None:
    channels = builder.channels[_source(node)]
    axis = argument(node, "dim") % channels.ndim
    last = [other for other in range(channels.ndim) if channels.shape[other] > 1][-1:]
    if axis in (0, *last) or not node.meta["val"].dtype.is_floating_point:
        builder.set_barrier(node, f"operator {node.target} over channels")
        return
    # Each position of the result depends on all positions along the axis.
    positions = _positions(builder, _source(node))
    ways = np.expand_dims(np.moveaxis(positions, axis, 0), axis + 1)
    index = np.broadcast_to(ways, (ways.shape[0], *positions.shape))
    _set_move(builder, node, index, effect=Effect.BLURS)


def _pad(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    amounts = argument(node, "pad")
    mode = argument(node, "mode", "constant")
    value = float(argument(node, "value") or 0.0)
    if not is_sequence_of_integers(amounts):
        builder.set_barrier(node, f"operator {node.target} with a computed amount")
        return
    positions = _positions(builder, source)
    rank = positions.ndim
    effect = Effect.KEEPS
    for place in range(len(amounts) // 2):
        axis = rank - 1 - place
        before, after = amounts[2 * place], amounts[2 * place + 1]
        if before == 0 and after == 0:
            continue
        if positions.shape[axis] == 1 and builder.shape(source)[axis] != 1:
            effect = Effect.PADS if mode == "constant" else Effect.KEEPS
        elif positions.shape[axis] == 1:
            builder.set_barrier(node, f"operator {node.target} along an axis of size 1")
            return
        elif mode == "constant" and before >= 0 and after >= 0 and positions.size == positions.shape[axis]:
            widths = [(0, 0)] * rank
            widths[axis] = (before, after)
            positions = np.pad(positions, widths, constant_values=-1)
        else:
            builder.set_barrier(node, f"operator {node.target} along the axis of the channels")
            return
    _set_move(builder, node, positions[None], effect=effect, padding_value=value)


def _pixel_shuffle(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    factor = int(argument(node, "upscale_factor"))
    positions = _positions(builder, source)
    if positions.ndim != 4 or positions.size != positions.shape[1]:
        builder.set_barrier(node, "pixel shuffle of other than (batch, channels, height, width)")
        return
    full = expand_axis(positions, 1, builder.shape(source)[1])
    index = full.reshape(-1, factor * factor).T.reshape(factor * factor, 1, -1, 1, 1)
    _set_move(builder, node, index)


def _pixel_unshuffle(builder: Builder, node: fx.Node) -> None:
    source = _source(node)
    factor = int(argument(node, "downscale_factor"))
    positions = _positions(builder, source)
    if positions.ndim != 4 or positions.size != positions.shape[1]:
        builder.set_barrier(node, "pixel unshuffle of other than (batch, channels, height, width)")
        return
    full = expand_axis(positions, 1, builder.shape(source)[1])
    _set_move(builder, node, np.repeat(full, factor * factor, axis=1)[None])


def _flip(builder: Builder, node: fx.Node) -> None:
    channels = builder.channels[_source(node)]
    axes: Any = argument(node, "dims")
    if any(channels.shape[axis % channels.ndim] > 1 for axis in axes) or not axes:
        builder.set_barrier(node, f"operator {node.target} along the axis of the channels")
        return
    _keep(builder, node)


def _getitem(builder: Builder, node: fx.Node) -> None:
    """The first result of an operator that returns several, such as a pool with indices."""
    source = _source(node)
    if node.args[1] != 0 or not isinstance(builder.roles.get(source), Move):
        builder.set_barrier(node, f"operator {source.target}")
        return
    _keep(builder, node)


def _guarded(rule: Callable[[Builder, fx.Node], None]) -> Callable[[Builder, fx.Node], None]:
    """Only values of the program with floating point numbers carry channels."""

    def guarded(builder: Builder, node: fx.Node) -> None:
        first = node.args[0] if node.args else None
        if operator_name(node) != "cat" and (not isinstance(first, fx.Node) or first not in builder.channels):
            builder.set_barrier(node, f"operator {node.target} of a constant")
        elif operator_name(node) == "cat" and not any(s in builder.channels for s in node.all_input_nodes):
            builder.set_barrier(node, f"operator {node.target} of constants")
        else:
            rule(builder, node)

    return guarded


_SPATIAL_KEEPS = (
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "max_pool2d_with_indices",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
    "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad1d", "reflection_pad2d",
    "replication_pad1d", "replication_pad2d",
)  # fmt: skip

RULES: dict[str, Callable[[Builder, fx.Node], None]] = {
    name: _guarded(rule)
    for name, rule in {
        **{name: _spatial() for name in _SPATIAL_KEEPS},
        "avg_pool1d": _average_pool,
        "avg_pool2d": _average_pool,
        "avg_pool3d": _average_pool,
        **dict.fromkeys(("reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view"), _reshape),
        **dict.fromkeys(("permute", "transpose", "swapaxes", "t"), _permute),
        "slice": _slice,
        "select": _select,
        "index_select": _index_select,
        "cat": _cat,
        "expand": _expand,
        "mean": _reduce(Effect.KEEPS),
        "amax": _reduce(Effect.KEEPS),
        "amin": _reduce(Effect.KEEPS),
        "sum": _reduce(Effect.KEEPS_ZERO),
        "softmax": _softmax,
        "_softmax": _softmax,
        "pad": _pad,
        "constant_pad_nd": _pad,
        "pixel_shuffle": _pixel_shuffle,
        "pixel_unshuffle": _pixel_unshuffle,
        "flip": _flip,
        "getitem": _getitem,
    }.items()
}
