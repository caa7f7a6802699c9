"""Values of input-independent channels, observed in one run.

A border channel has the same image for every input. Once a pool over all positions or a flattening has turned that
image into single numbers, these are constants like any other; one run in float64 on any input shows them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx
from torch.utils._pytree import tree_map

from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.positions import Positions
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["Observed"]


class Observed:
    """The values, on an input of zeros, of those nodes whose every slot is a single number; found at first need."""

    def __init__(self, structure: Structure) -> None:
        self._program = structure.program
        self._single = {
            node.name for node, channels in structure.channels.items() if self._is_single(node, channels.shape)
        }
        self._values: dict[str, NDArray[np.float64]] | None = None

    def numbers(self, node: fx.Node, channels: Positions) -> NDArray[np.float64] | None:
        """One number for each slot of ``channels``, the description of the node's value; ``None`` if it has more."""
        if node.name not in self._single:
            return None
        if self._values is None:
            self._values = self._run()
        found = self._values.get(node.name)
        return None if found is None else found.reshape(channels.shape)

    def _is_single(self, node: fx.Node, lengths: tuple[int, ...]) -> bool:
        shape = self._program.shapes[node]
        return len(shape) > 1 and shape[0] > LARGEST_STATIC_SIZE and shape[1:] == lengths[1:]

    def _run(self) -> dict[str, NDArray[np.float64]]:
        recorder = _Recorder(self._program.module, self._single)
        shapes = self._program.captured.input_shapes
        try:
            recorder.run(*[torch.zeros((1, *shape), dtype=torch.float64) for shape in shapes])
        except RuntimeError:
            # A graph with types written into it need not run in float64; then border channels simply stay.
            return {}
        return recorder.found


def _in_float64(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class _Recorder(fx.Interpreter):
    """Computes in float64, and keeps the results of some nodes."""

    def __init__(self, module: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(module)
        self.wanted = wanted
        self.found: dict[str, NDArray[np.float64]] = {}

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Weights one at a time as they are read: all of them would be twice the network.
        arguments, keywords = super().fetch_args_kwargs_from_env(n)
        if n.op != "call_function":
            return arguments, keywords
        return tree_map(_in_float64, arguments), tree_map(_in_float64, keywords)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.wanted and isinstance(result, torch.Tensor) and result.is_floating_point():
            self.found[n.name] = result.detach().to(torch.float64).numpy().copy()
        return result
