"""Entry of the operator table: the rule for an operator's role, and its rewrite with fewer channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.roles import Move
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["Operator", "Rewrite", "Rule"]

#: Gives a node its role and channels, or the role of a barrier.
Rule = Callable[[Builder, fx.Node], None]
#: Writes the node of a :class:`Move` whose value has at least one channel left; returns the new node.
Rewrite = Callable[[Writer, fx.Node, Move], fx.Node]


@dataclass(frozen=True)
class Operator:
    """An ATen operator. Only those with the role :class:`Move` have a rewrite: other roles hold all that is needed."""

    assign: Rule
    rewrite: Rewrite | None = None
