"""Constants of a graph, computed once; and products with a matrix joined with the sum behind them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from edgefolio.errors import UserError
from edgefolio_pruner.onnx_source.graph import Array, Graph, Node
from edgefolio_pruner.onnx_source.operators.layers import LINEAR
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value
from edgefolio_pruner.onnx_source.operators.registry import OPERATORS

__all__ = ["folded", "joined"]

#: Joined to a node behind its product.
_SUM = "Add"


def folded(graph: Graph) -> Graph:
    """``graph`` without nodes that depend on constants alone, which become constants, and without what nobody reads.

    Raises a refusal for a node whose operator is not in the table.
    """
    constants = dict(graph.constants)
    left: list[Node] = []
    for node in graph.nodes:
        operator = OPERATORS.get(node.operator)
        if operator is None:
            raise node.refused(
                "is not known here",
                remedy="Export the network without it: for the part before it, or with operators that "
                "docs/how-to/own-onnx.md lists.",
            )
        given = [constants.get(name) if name else None for name in node.inputs]
        if any(name and name not in constants for name in node.inputs) or not node.inputs:
            left.append(node)
            continue
        constants.update(zip(node.outputs, _computed(node, operator, given), strict=False))
    return _without_unread(replace(graph, nodes=tuple(left), constants=constants))


def _computed(node: Node, operator: Operator, given: list[Array | None]) -> list[Array]:
    try:
        if operator.host is not None:
            found: Value | tuple[Value, ...] = operator.host(node, *given)
        else:
            layer = operator.layer(node, given) if operator.layer is not None else None
            kept = [one for place, one in enumerate(given) if layer is None or place not in operator.weights]
            tensors = [None if one is None else torch.tensor(np.ascontiguousarray(one)) for one in kept]
            with torch.no_grad():
                if layer is None:
                    found = operator.run(node, *tensors)
                else:
                    found = operator.with_layer(node, layer.eval(), *tensors)
    except UserError:
        raise
    except Exception as error:  # NumPy and torch raise their own kinds for what does not fit
        raise node.refused(
            f"cannot be computed ({' '.join(str(error).split())[:200]})", remedy="Export the network again."
        ) from error
    values = found if isinstance(found, tuple) else (found,)
    return [value.numpy() if isinstance(value, torch.Tensor) else value for value in values]


def joined(graph: Graph) -> Graph:
    """``graph`` with each product with a constant matrix, and the constant that is added to it alone, as one node."""
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(graph.outputs)
    readers = {name: node for node in graph.nodes for name in node.inputs}
    taken: dict[str, Node] = {}
    gone: set[str] = set()
    for node in graph.nodes:
        matrix = graph.constants.get(node.inputs[1]) if node.operator == "MatMul" else None
        if matrix is None or matrix.ndim != 2 or uses[node.outputs[0]] != 1:
            continue
        reader = readers.get(node.outputs[0])
        if reader is None or reader.operator != _SUM:
            continue
        other = next((name for name in reader.inputs if name != node.outputs[0]), "")
        bias = graph.constants.get(other)
        if bias is None or bias.shape != (matrix.shape[1],):
            continue
        taken[reader.outputs[0]] = replace(node, operator=LINEAR, inputs=(*node.inputs, other), outputs=reader.outputs)
        gone.add(node.outputs[0])
    nodes = [taken.get(node.outputs[0], node) for node in graph.nodes if node.outputs[0] not in gone]
    return replace(graph, nodes=tuple(nodes))


def _without_unread(graph: Graph) -> Graph:
    read = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if read & set(node.outputs):
            kept.append(node)
            read.update(node.inputs)
    constants = {name: value for name, value in graph.constants.items() if name in read}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)
