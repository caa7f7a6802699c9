"""Builder of the smaller graph: new nodes for old ones, and the weights they read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.spatial.graph.capture import assign_tensor
from edgefolio_pruner.spatial.passes.removal_plan import RemovalPlan
from edgefolio_pruner.spatial.roles import Contraction

__all__ = ["Writer"]

aten = torch.ops.aten


class Writer:
    """Builds the new graph node by node. ``values`` maps old nodes to new ones; absent values have no entry."""

    def __init__(self, plan: RemovalPlan) -> None:
        self.plan = plan
        self.program = plan.structure.program
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self.values: dict[fx.Node, fx.Node] = {}
        # Values that are constants of shape (1, C, 1, 1), and the shape they stand for.
        self.constants: dict[fx.Node, list[Any]] = {}
        self._held: dict[tuple[str, Any], fx.Node] = {}
        self._names: set[str] = set()
        self._batch: fx.Node | None = None
        self.uses = Counter(
            str(role.weight.target) for role in plan.structure.roles.values() if isinstance(role, Contraction)
        )

    def call(self, target: Any, *arguments: Any) -> fx.Node:
        """A new call."""
        return self.graph.call_function(target, arguments)

    def copy(self, node: fx.Node, **replaced: Any) -> fx.Node:
        """``node`` with its inputs mapped and the named arguments replaced."""
        arguments, keywords = list(node.args), dict(node.kwargs)
        for name, value in replaced.items():
            described = node.target._schema.arguments  # type: ignore[union-attr]
            place = next(index for index, entry in enumerate(described) if entry.name == name)
            if place < len(arguments):
                arguments[place] = value
            else:
                keywords[name] = value
        mapped = fx.map_arg((tuple(arguments), keywords), self.new)
        assert callable(node.target)
        return self.graph.call_function(node.target, *mapped)

    def new(self, node: fx.Node) -> fx.Node:
        """The new node for an old one; nodes that are already new pass through."""
        if node.graph is self.graph:
            return node
        if node not in self.values and node.op == "get_attr":
            casts = self.program.casts(self.program.held(node))
            self.values[node] = self.hold(str(node.target), self.program.constant(node), own=casts)
        if node in self.constants:
            shape = [self.batch_size(), *self.constants.pop(node)]
            self.values[node] = self.call(aten.expand.default, self.values[node], shape)
        return self.values[node]

    def hold(self, name: str, tensor: torch.Tensor, key: Any = "whole", *, own: bool = False) -> fx.Node:
        """A weight under ``name``; equal ``key`` means equal content, another content gets another name.

        ``own`` tells that nobody else has ``tensor``, so that no copy is needed.
        """
        if (name, key) not in self._held:
            unique, number = name, 2
            while unique in self._names:
                unique, number = f"{name}_{number}", number + 1
            self._names.add(unique)
            trainable = isinstance(_lookup(self.program.module, name), torch.nn.Parameter)
            held = tensor.detach() if own else tensor.detach().clone()
            assign_tensor(self.root, unique, held.contiguous(), trainable=trainable)
            self._held[name, key] = self.graph.get_attr(unique)
        return self._held[name, key]

    def batch_size(self) -> fx.Node:
        """The batch size of the first input."""
        if self._batch is None:
            first = next(node for node in self.program.nodes if node.op == "placeholder")
            with self.graph.inserting_after(self.values[first]):
                self._batch = self.graph.call_function(aten.sym_size.int, (self.values[first], 0))
        return self._batch

    def constant_slice(self, node: fx.Node, axis: int, kept: np.ndarray[Any, Any]) -> fx.Node:
        """A constant with only the kept positions along ``axis``."""
        tensor = self.program.constant(node)
        if kept.all() or tensor.shape[axis] == 1:
            return self.new(node)
        index = torch.from_numpy(np.flatnonzero(kept))
        return self.hold(str(node.target), tensor.index_select(axis, index), (axis, kept.tobytes()))


def _lookup(module: torch.nn.Module, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
