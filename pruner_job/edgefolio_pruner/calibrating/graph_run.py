"""Resumable interpreter of a captured graph: run to a layer, change it, run on; each layer is computed once per net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from edgefolio_pruner.network_inputs import Samples, by_input, count


class GraphRun:
    """One pass of all calibration samples through a graph, which can stop after any node and resume.

    ``state`` (weights by name) is read when a node runs, so weights changed between two calls of :meth:`advance` take
    effect on what follows. Only values that later nodes need are held: two activations of a residual net, not all.
    """

    def __init__(
        self,
        graph: fx.Graph,
        state: Mapping[str, torch.Tensor],
        chunks: Sequence[Samples],
        *,
        hold: Iterable[tuple[fx.Node, fx.Node]] = (),
    ) -> None:
        """``hold``: pairs (node, until): its value must survive a stop right after ``until``."""
        self._state = state
        self._nodes = list(graph.nodes)
        self._index = {node: index for index, node in enumerate(self._nodes)}
        last_use = {node: max((self._index[user] for user in node.users), default=-1) for node in self._nodes}
        for node, until in hold:
            last_use[node] = max(last_use[node], self._index[until] + 1)
        self._dying: dict[int, list[fx.Node]] = {}
        for node, index in last_use.items():
            self._dying.setdefault(index, []).append(node)
        self._position = 0
        placeholders = [node for node in self._nodes if node.op == "placeholder"]
        self._values: list[dict[fx.Node, Any]] = [
            dict(zip(placeholders, by_input(chunk), strict=True)) for chunk in chunks
        ]

    def advance(self, through: fx.Node) -> None:
        """Run all nodes through ``through``."""
        stop = self._index[through] + 1
        for values in self._values:
            for index in range(self._position, stop):
                node = self._nodes[index]
                if node.op == "call_function":
                    values[node] = self._run(node, values)
                for dead in self._dying.get(index, ()):
                    values.pop(dead, None)
        self._position = max(self._position, stop)

    def values(self, node: fx.Node) -> list[torch.Tensor]:
        """The value of a computed node, per chunk."""
        return [values[node] for values in self._values]

    def rerun(self, nodes: Sequence[fx.Node]) -> None:
        """Run ``nodes``, in this order, again (their weights have changed)."""
        for values in self._values:
            fresh: dict[fx.Node, Any] = {}
            for node in nodes:
                fresh[node] = self._run(node, values | fresh)
            values[nodes[-1]] = fresh[nodes[-1]]

    def end(self) -> None:
        """Let go of all values."""
        for values in self._values:
            values.clear()

    def held_bytes(self) -> int:
        """Bytes of all activations held at present."""
        return sum(
            value.numel() * value.element_size()
            for values in self._values
            for value in values.values()
            if isinstance(value, torch.Tensor)
        )

    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        def load(source: fx.Node) -> Any:
            return self._state[str(source.target)] if source.op == "get_attr" else values[source]

        arguments, keywords = fx.map_arg((node.args, node.kwargs), load)
        assert callable(node.target)
        return node.target(*arguments, **keywords)


def peak_bytes_per_sample(graph: fx.Graph, state: Mapping[str, torch.Tensor], sample: Samples) -> float:
    """Peak bytes of live activations between two nodes, per sample of ``sample`` [n, ...]."""
    run = GraphRun(graph, state, [sample])
    peak = 0
    for node in graph.nodes:
        if node.op == "call_function":
            run.advance(node)
            peak = max(peak, run.held_bytes())
    return peak / count(sample)
