"""Constants of a graph, computed once; and products with a matrix joined with the sum behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from edgefolio.errors import UserError
from edgefolio_pruner.onnx_source.graph import Array, Graph, Node, is_scalar
from edgefolio_pruner.onnx_source.operators import host
from edgefolio_pruner.onnx_source.operators.layers import LINEAR
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value
from edgefolio_pruner.onnx_source.operators.registry import OPERATORS

__all__ = ["folded", "joined"]

#: Joined to a node behind its product.
_SUM = "Add"
#: Numbers that may be computed, besides a multiple of those that the file holds.
_BUDGET, _SHARE = 1 << 26, 4
_WITHOUT = (
    "Export it with constants that are computed beforehand (onnxsim, or ONNX Runtime's optimized_model_filepath)."
)


def folded(graph: Graph) -> Graph:
    """``graph`` without nodes that depend on constants alone, which become constants, and without what nobody reads.

    Raises a refusal for a node whose operator is not in the table.
    """
    constants = dict(graph.constants)
    # What a small file may compute is bounded, all its nodes together.
    budget = _BUDGET + _SHARE * sum(value.size for value in constants.values())
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
        found = _computed(node, operator, given)
        budget -= sum(value.size for value in found)
        if budget < 0:
            raise node.refused("computes too much from constants", remedy=_WITHOUT)
        constants.update(zip(node.outputs, found, strict=False))
    return _without_unread(replace(graph, nodes=tuple(left), constants=constants))


def _computed(node: Node, operator: Operator, given: list[Array | None]) -> list[Array]:
    try:
        if operator.host is not None:
            found: Value | tuple[Value, ...] = operator.host(node, *given)
        else:
            layer = operator.layer(node, given) if operator.layer is not None else None
            kept = [one for place, one in enumerate(given) if layer is None or place not in operator.weights]
            if node.operator == "Einsum":
                raise node.refused("multiplies constants alone", remedy=_WITHOUT)
            run = operator.run if layer is None else partial(_with_layer, operator, layer.eval())
            with torch.no_grad():
                # On sizes alone first.
                with FakeTensorMode(allow_non_fake_inputs=True):
                    sizes = run(node, *_as_read(kept, lambda one: torch.empty(one.shape)))
                for size in sizes if isinstance(sizes, tuple) else (sizes,):
                    host.require_small(node, size.shape)
                found = run(node, *_as_read(kept, lambda one: torch.tensor(np.ascontiguousarray(one))))
    except UserError:
        raise
    except Exception as error:  # NumPy and torch raise their own kinds for what does not fit
        raise node.refused(
            f"cannot be computed ({' '.join(str(error).split())[:200]})", remedy="Export the network again."
        ) from error
    values = found if isinstance(found, tuple) else (found,)
    return [value.numpy() if isinstance(value, torch.Tensor) else value for value in values]


def _as_read(given: list[Array | None], tensor: Callable[[Array], torch.Tensor]) -> list[Value | None]:
    """Operands as tensors; integers and single numbers, which are settings, as they are."""
    return [
        tensor(one) if one is not None and one.dtype.kind == "f" and (place == 0 or not is_scalar(one)) else one
        for place, one in enumerate(given)
    ]


def _with_layer(operator: Operator, layer: nn.Module, node: Node, *given: Value | None) -> Value | tuple[Value, ...]:
    result: Value | tuple[Value, ...] = operator.with_layer(node, layer, *given)
    return result


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
