"""Shared rules of data-moving operators: each channel of the result is one of a source."""

from __future__ import annotations

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import operator_name
from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.operators.operator import Operator, Rewrite, Rule
from edgefolio_pruner.spatial.positions import Positions
from edgefolio_pruner.spatial.roles import Effect, Move
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["keep", "mover", "positions_of", "set_move", "source_of", "unchanged"]


def positions_of(builder: Builder, source: fx.Node) -> Positions:
    """Each slot of the source's description by its place in it."""
    channels = builder.channels[source]
    return np.arange(channels.size, dtype=np.int64).reshape(channels.shape)


def set_move(
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
        sources = (source_of(node),)
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


def source_of(node: fx.Node) -> fx.Node:
    """The first argument."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def keep(builder: Builder, node: fx.Node, effect: Effect = Effect.KEEPS) -> None:
    """Every slot of the result is the slot in the same place of the source."""
    set_move(builder, node, positions_of(builder, source_of(node))[None], effect=effect)


def unchanged(writer: Writer, node: fx.Node, _role: Move) -> fx.Node:
    """The rewrite of operators none of whose arguments counts channels."""
    return writer.copy(node)


def mover(rule: Rule, rewrite: Rewrite) -> Operator:
    """The entry of an operator that moves data."""
    return Operator(_guarded(rule), rewrite)


def _guarded(rule: Rule) -> Rule:
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
