"""Small helpers to read and build nodes of an ATen graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

__all__ = [
    "argument",
    "insert",
    "is_sequence_of_integers",
    "operator_name",
    "set_value",
    "tensor_inputs",
]


def operator_name(node: fx.Node) -> str:
    """The operator without its namespace and overload, such as ``conv2d``; for other nodes their kind."""
    if node.op != "call_function":
        return node.op
    packet = getattr(node.target, "_opname", None)
    return str(packet) if packet is not None else getattr(node.target, "__name__", str(node.target))


def argument(node: fx.Node, name: str, default: Any = None) -> Any:
    """The argument called ``name`` in the operator's schema, its default if not given."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return default
    if name in node.kwargs:
        return node.kwargs[name]
    for index, described in enumerate(schema.arguments):
        if described.name == name:
            return node.args[index] if index < len(node.args) else described.default_value
    return default


def tensor_inputs(node: fx.Node) -> tuple[fx.Node, ...]:
    """The inputs that carry tensors, in order, each once."""
    seen: dict[fx.Node, None] = {}
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if value is None or isinstance(value, (torch.Tensor, tuple, list)):
            seen[source] = None
    return tuple(seen)


def is_sequence_of_integers(value: Any) -> bool:
    """Whether ``value`` is a list of plain integers."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, int) for item in value)


def set_value(node: fx.Node) -> None:
    """Fill ``node.meta['val']`` by running the operator on the shapes of its arguments."""
    arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
    assert callable(node.target)
    fakes = [leaf for leaf in pytree.tree_leaves((arguments, keywords)) if hasattr(leaf, "fake_mode")]
    if fakes:
        with fakes[0].fake_mode:
            node.meta["val"] = node.target(*arguments, **keywords)
    else:
        node.meta["val"] = node.target(*arguments, **keywords)


def insert(before: fx.Node, target: Callable[..., Any], arguments: tuple[Any, ...], **keywords: Any) -> fx.Node:
    """A new call in front of ``before``, with its value's shape filled in."""
    with before.graph.inserting_before(before):
        new = before.graph.call_function(target, arguments, keywords)
    new.meta.update({key: value for key, value in before.meta.items() if key != "val"})
    set_value(new)
    return new
