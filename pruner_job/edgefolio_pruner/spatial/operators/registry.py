"""The table of the ATen operators that carry channels. What is not listed here is a barrier."""

from __future__ import annotations

from torch import fx

from edgefolio_pruner.spatial.graph.nodes import operator_name
from edgefolio_pruner.spatial.operators import (
    attention,
    contractions,
    elementwise,
    exchanging,
    indexing,
    pooling,
    reshaping,
)
from edgefolio_pruner.spatial.operators.operator import Operator

__all__ = ["MOVEMENTS", "OPERATORS", "operator_of"]

#: Operators that move data: their rewrite is required.
MOVEMENTS = {**reshaping.OPERATORS, **indexing.OPERATORS, **pooling.OPERATORS}
OPERATORS: dict[str, Operator] = {
    **contractions.OPERATORS,
    **attention.OPERATORS,
    **elementwise.OPERATORS,
    **exchanging.OPERATORS,
    **MOVEMENTS,
}


def operator_of(node: fx.Node) -> Operator | None:
    """The entry of a call; ``None`` for a barrier."""
    return OPERATORS.get(operator_name(node)) if node.op == "call_function" else None
