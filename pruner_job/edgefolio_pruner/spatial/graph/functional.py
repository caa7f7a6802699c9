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

from edgefolio_pruner.spatial.graph.nodes import argument, insert, operator_name

__all__ = ["functionalize", "simplify"]

aten = torch.ops.aten


def functionalize(program: ExportedProgram) -> ExportedProgram:
    """A program without in-place operators, simplified by :func:`simplify`."""
    if not _replace_in_place(program.graph, frozenset(program.graph_signature.user_inputs)):
        # An aliased tensor is written: let torch resolve the aliases.
        program = program.run_decompositions({})
    simplify(program.graph)
    return program


def simplify(graph: fx.Graph) -> None:
    """Canonicalize equivalent operators; drop those that are no-ops in evaluation mode."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _FORMS:
            _FORMS[node.target](graph, node)
    graph.eliminate_dead_code()


# --- in-place operators -------------------------------------------------------------------------------------------

_MAY_ALIAS = ("view", "reshape", "flatten", "slice", "select", "transpose", "permute", "expand", "squeeze", "chunk",
              "split", "unbind", "narrow", "detach", "contiguous", "alias", "dropout", "to", "t", "getitem", "unfold",
              "swapaxes", "movedim", "diagonal", "unflatten", "expand_as", "view_as", "type_as", "reshape_as",
              "unsqueeze", "split_with_sizes", "tensor_split", "_unsafe_view")  # fmt: skip


def _is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _replace_in_place(graph: fx.Graph, user_inputs: frozenset[str]) -> bool:
    """Replace in-place operators; ``False``, and nothing changed, if the written tensor has an alias."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    roots: dict[fx.Node, fx.Node] = {}
    tensors: dict[fx.Node, fx.Node] = {}
    aliases: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        first = node.args[0] if node.op == "call_function" and node.args else None
        may_alias = isinstance(first, fx.Node) and (_is_in_place(node) or operator_name(node) in _MAY_ALIAS)
        roots[node] = roots[first] if may_alias and isinstance(first, fx.Node) else node
        # An in-place operator returns the very tensor it wrote to, and later readers of either see the last value.
        tensors[node] = tensors[first] if _is_in_place(node) and isinstance(first, fx.Node) else node
        aliases.setdefault(roots[node], []).append(node)
    plan: list[tuple[fx.Node, Any]] = []
    for node in filter(_is_in_place, graph.nodes):
        functional = _out_of_place(node)
        written = node.args[0] if node.args else None
        if functional is None or not isinstance(written, fx.Node) or _is_weight(roots[written], user_inputs):
            return False
        others = [alias for alias in aliases[roots[written]] if tensors[alias] is not tensors[written]]
        if any(order[user] > order[node] for alias in others if order[alias] < order[node] for user in alias.users):
            return False
        plan.append((node, functional))
    for node, functional in plan:
        # An earlier replacement may have changed what this one writes to.
        written = node.args[0]
        assert isinstance(written, fx.Node)
        node.target = functional
        for user in list(written.users):
            if order[user] > order[node]:
                user.replace_input_with(written, node)
    return True


def _is_weight(node: fx.Node, user_inputs: frozenset[str]) -> bool:
    return node.op == "get_attr" or (node.op == "placeholder" and node.name not in user_inputs)


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


def _evaluation_batch_norm(_: fx.Graph, node: fx.Node) -> None:
    if argument(node, "training") or argument(node, "cudnn_enabled") is False:
        return
    node.args = (*node.args[:8], False)


def _batch_norm_arguments(node: fx.Node) -> tuple[Any, ...]:
    source, weight, bias, mean, variance, momentum, epsilon = node.args
    return (source, weight, bias, mean, variance, False, momentum, epsilon, False)


def _dropout(graph: fx.Graph, node: fx.Node) -> None:
    if not argument(node, "train"):
        _identity(graph, node)


def _expand_as(graph: fx.Graph, node: fx.Node) -> None:
    """``expand`` to sizes of its own, so that only repeated axes depend on the other tensor."""
    source, other = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(other, fx.Node)
    before, after = source.meta["val"].shape, node.meta["val"].shape
    missing = len(after) - len(before)
    sizes: list[Any] = []
    for axis, size in enumerate(after):
        if axis >= missing and before[axis - missing] == size:
            sizes.append(-1)
        elif isinstance(size, int):
            sizes.append(size)
        else:
            sizes.append(insert(node, aten.sym_size.int, (other, axis)))
    _replace(node, aten.expand.default, (source, sizes))
    graph.erase_node(node)


def _stack(graph: fx.Graph, node: fx.Node) -> None:
    """``stack`` as concatenation along an axis of its own."""
    given = node.args[0]
    assert isinstance(given, (list, tuple))
    axis = argument(node, "dim") % node.meta["val"].ndim
    parts = [insert(node, aten.unsqueeze.default, (part, axis)) for part in given]
    _replace(node, aten.cat.default, (parts, axis))
    graph.erase_node(node)


def _slice(graph: fx.Graph, node: fx.Node) -> None:
    """Drop a slice that takes all."""
    start, end, step = argument(node, "start"), argument(node, "end"), argument(node, "step")
    if start in (None, 0) and step == 1 and (end is None or (isinstance(end, int) and end >= 2**62)):
        _identity(graph, node)


def _reshape(_: fx.Graph, node: fx.Node) -> None:
    """A reshape for a view: dropped copies may leave it non-contiguous."""
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
    aten.expand_as.default: _expand_as,
    aten.stack.default: _stack,
}
