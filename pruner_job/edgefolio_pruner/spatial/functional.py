"""Making an exported graph purely functional and one tensor per node.

In-place operators become their out-of-place form, operators that return several tensors become one node per tensor
(``chunk`` and ``split`` turn into ``slice``, ``unbind`` into ``select``), and evaluation-mode batch norm is one node.
After this pass every node that the channel passes look at has exactly one tensor as its value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from .nodes import argument, insert, operator_name

__all__ = ["functionalize", "simplify"]

aten = torch.ops.aten


def functionalize(program: ExportedProgram) -> ExportedProgram:
    """A program without in-place operators, simplified by :func:`simplify`."""
    if not _replace_in_place(program.graph):
        # An aliased tensor is written: let torch work out who sees the new value.
        program = program.run_decompositions({})
    simplify(program.graph)
    return program


def simplify(graph: fx.Graph) -> None:
    """Bring equal meanings to one form; drops what does nothing in evaluation mode."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _FORMS:
            _FORMS[node.target](graph, node)
    graph.eliminate_dead_code()


# --- in-place operators -------------------------------------------------------------------------------------------

_MAY_ALIAS = ("view", "reshape", "flatten", "slice", "select", "transpose", "permute", "expand", "squeeze", "chunk",
              "split", "unbind", "narrow", "detach", "contiguous", "alias", "dropout", "to", "t", "getitem", "unfold",
              "swapaxes", "movedim", "diagonal", "unflatten", "expand_as", "view_as", "type_as", "reshape_as")  # fmt: skip


def _is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _replace_in_place(graph: fx.Graph) -> bool:
    """Replace in-place operators where no alias is written; ``False`` if one is (the graph is then unchanged)."""
    written = [node for node in graph.nodes if _is_in_place(node)]
    plan: list[tuple[fx.Node, Any]] = []
    for node in written:
        functional = _out_of_place(node)
        first = node.args[0] if node.args else None
        if functional is None or not isinstance(first, fx.Node) or first.op != "call_function":
            return False
        may_alias = operator_name(first).rstrip("_") in _MAY_ALIAS
        users = [user for user in first.users if user is not node]
        if may_alias or any(operator_name(user).rstrip("_") in _MAY_ALIAS for user in users):
            return False
        plan.append((node, functional))
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node, functional in plan:
        first = node.args[0]
        assert isinstance(first, fx.Node)
        node.target = functional
        for user in list(first.users):
            if order[user] > order[node]:
                user.replace_input_with(first, node)
    return True


def _out_of_place(node: fx.Node) -> Any:
    name = operator_name(node)
    packet = getattr(aten, name[:-1], None) if name.endswith("_") else None
    overload = getattr(node.target, "_overloadname", "")
    return getattr(packet, overload, None) if packet is not None else None


# --- one form, one tensor per node ---------------------------------------------------------------------------------


def _replace(node: fx.Node, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    node.replace_all_uses_with(insert(node, target, arguments))


def _identity(graph: fx.Graph, node: fx.Node) -> None:
    first = node.args[0]
    assert isinstance(first, fx.Node)
    node.replace_all_uses_with(first)
    graph.erase_node(node)


def _parts(graph: fx.Graph, node: fx.Node) -> None:
    """``chunk``, ``split`` and ``unbind``: one ``slice`` or ``select`` for each part that is read."""
    value = node.meta["val"]
    source = node.args[0]
    axis = argument(node, "dim")
    users = list(node.users)
    if not all(user.target is operator.getitem for user in users):
        return
    starts = [0]
    unbind = node.target is aten.unbind.int
    for part in value:
        starts.append(starts[-1] + (1 if unbind else part.shape[axis]))
    if not all(isinstance(start, int) for start in starts):
        return
    for user in users:
        index = user.args[1]
        assert isinstance(index, int)
        if index < 0:
            index += len(value)
        if unbind:
            _replace(user, aten.select.int, (source, axis, index))
        else:
            _replace(user, aten.slice.Tensor, (source, axis, starts[index], starts[index + 1]))
        graph.erase_node(user)
    graph.erase_node(node)


def _first_of(target: Callable[..., Any], arguments: Callable[[fx.Node], tuple[Any, ...]]) -> Any:
    """A rule for operators of which only the first result is read."""

    def rule(graph: fx.Graph, node: fx.Node) -> None:
        users = list(node.users)
        if not all(user.target is operator.getitem and user.args[1] == 0 for user in users):
            return
        for user in users:
            _replace(user, target, arguments(node))
            graph.erase_node(user)
        graph.erase_node(node)

    return rule


def _evaluation_batch_norm(graph: fx.Graph, node: fx.Node) -> None:
    if argument(node, "training") or argument(node, "cudnn_enabled") is False:
        return
    node.args = (*node.args[:8], False)


def _batch_norm_arguments(node: fx.Node) -> tuple[Any, ...]:
    source, weight, bias, mean, variance, momentum, epsilon = node.args
    return (source, weight, bias, mean, variance, False, momentum, epsilon, False)


def _dropout(graph: fx.Graph, node: fx.Node) -> None:
    if not argument(node, "train"):
        _identity(graph, node)


def _slice(graph: fx.Graph, node: fx.Node) -> None:
    """A slice that takes everything."""
    start, end, step = argument(node, "start"), argument(node, "end"), argument(node, "step")
    if start in (None, 0) and step == 1 and (end is None or (isinstance(end, int) and end >= 2**62)):
        _identity(graph, node)


def _reshape(graph: fx.Graph, node: fx.Node) -> None:
    """A view of what may no longer be contiguous, since copies were dropped."""
    node.target = aten.reshape.default


_FORMS: dict[Any, Callable[[fx.Graph, fx.Node], None]] = {
    aten.chunk.default: _parts,
    aten.split.Tensor: _parts,
    aten.split.sizes: _parts,
    aten.split_with_sizes.default: _parts,
    aten.tensor_split.sections: _parts,
    aten.unbind.int: _parts,
    aten.batch_norm.default: _evaluation_batch_norm,
    aten._native_batch_norm_legit_no_training.default: _first_of(aten.batch_norm.default, _batch_norm_arguments),
    aten.max_pool2d_with_indices.default: _first_of(aten.max_pool2d.default, lambda node: node.args),
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.alpha_dropout.default: _dropout,
    aten.slice.Tensor: _slice,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.detach.default: _identity,
    aten.alias.default: _identity,
    aten.contiguous.default: _identity,
    aten.lift_fresh_copy.default: _identity,
    aten.clone.default: _identity,
}
