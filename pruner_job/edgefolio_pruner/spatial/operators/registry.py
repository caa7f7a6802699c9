"""Which role each ATen operator has. What is not listed here is a barrier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import operator_name
from edgefolio_pruner.spatial.operators import contractions, elementwise, movement
from edgefolio_pruner.spatial.roles import Input
from edgefolio_pruner.spatial.structure import Builder

__all__ = ["assign_role"]

Rule = Callable[[Builder, fx.Node], None]

_RULES: dict[str, Rule] = {
    **contractions.RULES,
    **elementwise.RULES,
    **movement.RULES,
}


def assign_role(builder: Builder, node: fx.Node) -> None:
    """Set the role and the channels of ``node``; a barrier where no rule applies."""
    if node.op == "placeholder":
        shape = builder.shape(node)
        lengths = [1] * len(shape)
        if len(shape) > 1 and shape[1] < 1_000_000:
            lengths[1] = shape[1]
        builder.channels[node] = builder.fresh(*lengths)
        builder.pin(builder.channels[node], "network input")
        builder.roles[node] = Input()
        return
    rule = _RULES.get(operator_name(node)) if node.op == "call_function" else None
    if rule is None:
        builder.set_barrier(node, f"operator {node.target}")
        return
    rule(builder, node)
    if node not in builder.channels:
        raise AssertionError(f"no channels for {node}")
    channels = builder.channels[node]
    assert channels.ndim == len(builder.shape(node)), (node.format_node(), channels.shape)
    assert isinstance(channels, np.ndarray)
