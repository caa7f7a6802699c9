"""Builder of a network of torch from a graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from edgefolio_pruner.onnx_source.folding import folded, joined
from edgefolio_pruner.onnx_source.graph import Array, Graph, Node, is_scalar
from edgefolio_pruner.onnx_source.naming import Names, layer_name
from edgefolio_pruner.onnx_source.network import OnnxNetwork, Step
from edgefolio_pruner.onnx_source.operators.operator import Operator
from edgefolio_pruner.onnx_source.operators.registry import OPERATORS

__all__ = ["build"]

_CONSTANTS = "file_constants"
#: What a network of these has besides its layers.
_ATTRIBUTES = ("file_input", "file_buffers")


def build(graph: Graph) -> OnnxNetwork:
    """The network that ``graph`` describes, in evaluation mode. Raises a refusal that names operator and node."""
    graph = joined(folded(graph))
    builder = _Builder(graph)
    return builder.network()


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._names = Names(reserved={*dir(OnnxNetwork), *_ATTRIBUTES, _CONSTANTS})
        self._layers: dict[str, nn.Module] = {}
        self._paths: dict[str, str] = {}

    def network(self) -> OnnxNetwork:
        steps = _with_last(tuple(map(self._step, self._graph.nodes)), self._graph.outputs)
        read = {name for step in steps for name in step.inputs} | set(self._graph.outputs)
        constants = {name: value for name, value in self._graph.constants.items() if name in read}
        settings = {name for step in steps if step.operator.settings for name in step.inputs}
        tensors = {name: value for name, value in constants.items() if _is_tensor(value) and name not in settings}
        host = {name: value for name, value in constants.items() if name not in tensors}
        network = OnnxNetwork(input=self._graph.input, steps=steps, outputs=self._graph.outputs, host=host)
        for path, layer in self._layers.items():
            _hold(network, path, layer)
        _share(network, self._graph.constants)
        holder = nn.Module()
        for number, (name, value) in enumerate(tensors.items()):
            # Constants that no layer holds are not trained.
            holder.register_buffer(f"value_{number}", torch.tensor(value, dtype=torch.float32))
            network.file_buffers[name] = f"{_CONSTANTS}.value_{number}"
        if tensors:
            network.add_module(_CONSTANTS, holder)
        return network.eval()

    def _step(self, node: Node) -> Step:
        operator = OPERATORS[node.operator]
        layer = self._layer(node, operator)
        inputs = [name for place, name in enumerate(node.inputs) if layer is None or place not in operator.weights]
        return Step(node=node, operator=operator, inputs=tuple(inputs), layer=layer)

    def _layer(self, node: Node, operator: Operator) -> str | None:
        """The path of the layer of ``node``, which nodes with the same weights and settings share."""
        if operator.layer is None:
            return None
        weights = [node.inputs[place] for place in operator.weights if place < len(node.inputs) and node.inputs[place]]
        key = repr((node.operator, weights, sorted((name, str(value)) for name, value in node.attributes.items())))
        if key not in self._paths:
            made = operator.layer(node, [self._graph.constants.get(name) for name in node.inputs])
            if made is None:
                return None
            path = self._names.path(layer_name(node, weights))
            self._layers[path], self._paths[key] = made, path
        return self._paths[key]


def _is_tensor(value: Array) -> bool:
    return value.dtype.kind == "f" and not is_scalar(value) and value.dtype != np.float64


def _with_last(steps: tuple[Step, ...], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """``steps``, each with the values that are not read after it."""
    seen = set(outputs)
    found: list[Step] = []
    for step in reversed(steps):
        last = tuple({name: None for name in (*step.inputs, *step.node.outputs) if name and name not in seen})
        seen.update(step.inputs)
        found.append(Step(node=step.node, operator=step.operator, inputs=step.inputs, layer=step.layer, last=last))
    return tuple(reversed(found))


def _hold(network: nn.Module, path: str, layer: nn.Module) -> None:
    *folders, name = path.split(".")
    holder = network
    for folder in folders:
        if folder not in holder._modules:
            holder.add_module(folder, nn.Module())
        inner = holder._modules[folder]
        assert inner is not None
        holder = inner
    holder.add_module(name, layer)


def _share(network: OnnxNetwork, constants: Mapping[str, Array]) -> None:
    """Make weights of the same constant one parameter, where layers hold it alike."""
    first: dict[tuple[str, str, tuple[int, ...]], nn.Parameter] = {}
    for step in network.steps:
        layer = network.layer_of(step)
        if layer is None:
            continue
        names = [step.node.inputs[place] for place in step.operator.weights if place < len(step.node.inputs)]
        for name, part in zip(names, ("weight", "bias"), strict=False):
            held = layer._parameters.get(part)
            if not name or held is None or name not in constants:
                continue
            key = (name, step.node.operator, tuple(held.shape))
            kept = first.setdefault(key, held)
            if kept is not held and bool(torch.equal(kept, held)):
                layer._parameters[part] = kept
