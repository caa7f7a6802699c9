"""Operators that pool, resize, pad or reduce each channel by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument, is_sequence_of_integers
from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.operators.moves import keep, mover, positions_of, set_move, source_of, unchanged
from edgefolio_pruner.spatial.roles import Effect, Move
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS", "SPATIAL"]


def _spatial(effect: Effect = Effect.KEEPS) -> Callable[[Builder, fx.Node], None]:
    """Operators that act on each channel alone, on all axes but the first two."""

    def rule(builder: Builder, node: fx.Node) -> None:
        channels = builder.channels[source_of(node)]
        # A feature map without a batch axis would have its channels first.
        if channels.ndim < 3 or channels.size != channels.shape[1]:
            builder.set_barrier(node, f"operator {node.target} along the axis of the channels")
            return
        keep(builder, node, effect)

    return rule


def _average_pool(builder: Builder, node: fx.Node) -> None:
    padding = argument(node, "padding")
    padded = any(padding) if isinstance(padding, (list, tuple)) else bool(padding)
    plain = (not padded or not argument(node, "count_include_pad")) and argument(node, "divisor_override") is None
    _spatial(Effect.KEEPS if plain else Effect.KEEPS_ZERO)(builder, node)


def _reduce(effect: Effect) -> Callable[[Builder, fx.Node], None]:
    """Reductions over axes along which the channel does not change."""

    def rule(builder: Builder, node: fx.Node) -> None:
        source = source_of(node)
        rank = len(builder.shape(source))
        axes = argument(node, "dim")
        axes = [axes] if isinstance(axes, int) else axes
        axes = [axis % rank for axis in axes] if axes else list(range(rank))
        positions = positions_of(builder, source)
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
        set_move(builder, node, ways, effect=effect)

    return rule


def _softmax(builder: Builder, node: fx.Node) -> None:
    channels = builder.channels[source_of(node)]
    axis = argument(node, "dim") % channels.ndim
    last = [other for other in range(channels.ndim) if channels.shape[other] > 1][-1:]
    if axis in (0, *last) or not node.meta["val"].dtype.is_floating_point:
        builder.set_barrier(node, f"operator {node.target} over channels")
        return
    # Each position of the result depends on all positions along the axis.
    positions = positions_of(builder, source_of(node))
    ways = np.expand_dims(np.moveaxis(positions, axis, 0), axis + 1)
    index = np.broadcast_to(ways, (ways.shape[0], *positions.shape))
    set_move(builder, node, index, effect=Effect.BLURS)


def _pad(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    amounts = argument(node, "pad")
    mode = argument(node, "mode", "constant")
    value = float(argument(node, "value") or 0.0)
    if not is_sequence_of_integers(amounts):
        builder.set_barrier(node, f"operator {node.target} with a computed amount")
        return
    positions = positions_of(builder, source)
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
    set_move(builder, node, positions[None], effect=effect, padding_value=value)


def _write_pad(writer: Writer, node: fx.Node, role: Move) -> fx.Node:
    """Padding of the channel axis: only the added channels that stay."""
    if not (role.index < 0).any():
        return writer.copy(node)
    channels = writer.plan.structure.channels[node]
    mask = writer.plan.mask(node).ravel()
    amounts = list(argument(node, "pad"))
    for place in range(len(amounts) // 2):
        axis = channels.ndim - 1 - place
        if channels.shape[axis] > 1 and (amounts[2 * place] or amounts[2 * place + 1]):
            before, after = amounts[2 * place], amounts[2 * place + 1]
            amounts[2 * place] = int(mask[:before].sum())
            amounts[2 * place + 1] = int(mask[len(mask) - after :].sum()) if after else 0
    return writer.copy(node, pad=amounts)


SPATIAL = (
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "_adaptive_avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
    "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad1d", "reflection_pad2d",
    "replication_pad1d", "replication_pad2d",
)  # fmt: skip

OPERATORS = {
    **dict.fromkeys(SPATIAL, mover(_spatial(), unchanged)),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), mover(_average_pool, unchanged)),
    **dict.fromkeys(("mean", "amax", "amin"), mover(_reduce(Effect.KEEPS), unchanged)),
    "sum": mover(_reduce(Effect.KEEPS_ZERO), unchanged),
    **dict.fromkeys(("softmax", "_softmax"), mover(_softmax, unchanged)),
    **dict.fromkeys(("pad", "constant_pad_nd"), mover(_pad, _write_pad)),
}
