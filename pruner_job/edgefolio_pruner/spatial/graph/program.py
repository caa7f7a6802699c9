"""The program that the channel passes work on.

A captured graph is copied and lowered: constants are folded (weight standardization, for instance), attention becomes
one node, channel shuffles that are spelled as reshape, transpose, reshape become one ``index_select``, and every node
gets its shape as plain integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.spatial.graph.attention import recognize_attention
from edgefolio_pruner.spatial.graph.capture import CapturedModel, assign_tensor, copy_graph_module, hold_constant
from edgefolio_pruner.spatial.graph.nodes import argument, insert, operator_name
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE, shape_of, size_of

__all__ = ["Program", "lower"]

aten = torch.ops.aten
_SHAPE_ONLY = ("reshape", "permute", "transpose", "flatten", "unflatten", "unsqueeze", "squeeze", "movedim", "swapaxes")
_LARGEST_SHUFFLE = 1 << 22


@dataclass(frozen=True)
class Program:
    """A lowered graph: ``module`` owns graph and weights, ``shapes`` has an entry for every node with a tensor value.

    Symbolic sizes appear in ``shapes`` as the primes of ``captured.tracing_sizes``.
    """

    captured: CapturedModel
    module: fx.GraphModule
    shapes: dict[fx.Node, tuple[int, ...]]

    @property
    def nodes(self) -> list[fx.Node]:
        """All nodes in order of execution."""
        return list(self.module.graph.nodes)

    def constant(self, node: fx.Node) -> torch.Tensor:
        """The tensor that a ``get_attr`` node reads."""
        held = self.held(node)
        return held.to(self.captured.reads_as) if self.casts(held) and self.captured.reads_as else held

    def casts(self, held: torch.Tensor) -> bool:
        """Whether a constant is read in another type than it is held in."""
        wanted = self.captured.reads_as
        return wanted is not None and held.is_floating_point() and held.dtype != wanted

    def held(self, node: fx.Node) -> torch.Tensor:
        """As :meth:`constant`, in the type that it is held in."""
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        assert isinstance(value, torch.Tensor)
        return value

    def size(self, value: Any) -> int:
        """A size argument (an integer or a node that computes one) as an integer; -1 if it cannot be known."""
        if isinstance(value, fx.Node):
            value = value.meta.get("val")
        if isinstance(value, (int, torch.SymInt)):
            return size_of(value, self.captured.tracing_sizes)
        return -1


def lower(captured: CapturedModel) -> Program:
    """The program of a captured model, on a copy of its graph; the weights are only read."""
    module = copy_graph_module(captured.graph_module, share_weights=True)
    if captured.reads_as is not None and _computes_constants(module):
        module.to(captured.reads_as)
    _fold_constants(module)
    recognize_attention(module, captured.tracing_sizes)
    shapes = _shapes(module, captured)
    _recognize_shuffles(module, shapes)
    module.graph.eliminate_dead_code()
    return Program(captured, module, _shapes(module, captured))


def _shapes(module: fx.GraphModule, captured: CapturedModel) -> dict[fx.Node, tuple[int, ...]]:
    shapes = {}
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, (tuple, list)) and value:
            # An operator with several results is known by its first.
            value = value[0]
        if isinstance(value, torch.Tensor):
            shapes[node] = shape_of(value, captured.tracing_sizes)
    return shapes


def _computes_constants(module: fx.GraphModule) -> bool:
    """Whether any node depends on constants alone."""
    return any(
        node.op == "call_function"
        and node.all_input_nodes
        and all(source.op == "get_attr" for source in node.all_input_nodes)
        for node in module.graph.nodes
    )


def _fold_constants(module: fx.GraphModule) -> None:
    """Compute every node that depends on constants alone, and hold the result as a constant."""
    held: dict[fx.Node, torch.Tensor] = {}
    state = module.state_dict()
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            held[node] = state[str(node.target)]
            continue
        foldable = (
            node.op == "call_function"
            and isinstance(node.meta.get("val"), torch.Tensor)
            and all(source in held for source in node.all_input_nodes)
            and not getattr(node.target, "_schema", None).is_mutable  # type: ignore[union-attr]
            and not _is_random(node)
        )
        if not foldable:
            continue
        with torch.no_grad():
            arguments, keywords = fx.map_arg((node.args, node.kwargs), lambda source: held[source])
            held[node] = node.target(*arguments, **keywords)
    folded = [node for node in held if node.op != "get_attr" and any(user not in held for user in node.users)]
    for number, node in enumerate(folded):
        name = f"folded_constants.{number}_{node.name}"
        assign_tensor(module, name, held[node].detach().clone().contiguous())
        with module.graph.inserting_before(node):
            replacement = module.graph.get_attr(name)
        replacement.meta.update(node.meta)
        node.replace_all_uses_with(replacement)
    module.graph.eliminate_dead_code()


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _recognize_shuffles(module: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]]) -> None:
    """Replace chains of reshapes and transposes whose whole effect is to permute axis 1."""
    for number, last in enumerate(list(module.graph.nodes)):
        name = operator_name(last)
        if name in ("channel_shuffle", "native_channel_shuffle"):
            groups, channels = argument(last, "groups"), shapes[last][1]
            order = np.arange(channels).reshape(groups, -1).T.ravel()
            _replace_by_selection(module, last, last.args[0], order, number)
        elif name in ("reshape", "flatten"):
            chain = _chain(last)
            if len(chain) < 3:
                continue
            source = chain[0].args[0]
            assert isinstance(source, fx.Node)
            found = _permutation(chain, source, shapes)
            if found is not None:
                _replace_by_selection(module, last, source, found, number)


def _chain(last: fx.Node) -> list[fx.Node]:
    """The movement operators that end in ``last`` and are read by nothing else: reshape, transposes, reshape."""
    chain = [last]
    while len(chain) < 6:
        source = chain[0].args[0]
        if not isinstance(source, fx.Node) or operator_name(source) not in _SHAPE_ONLY or len(source.users) != 1:
            break
        chain.insert(0, source)
        if operator_name(source) == "reshape":
            break
    return chain if operator_name(chain[0]) == "reshape" else []


def _permutation(
    chain: list[fx.Node], source: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]
) -> np.ndarray[Any, Any] | None:
    """The order in which the chain puts the positions of axis 1, if that is all it does."""
    before, after = shapes[source], shapes[chain[-1]]
    if before != after or len(before) < 3:
        return None
    # Symbolic sizes are cut to 2; the other sizes must still distinguish batch, channel and position.
    small = {size: 2 for size in set(before) if size > LARGEST_STATIC_SIZE}
    sizes = [small.get(size, size) for size in before]
    if int(np.prod(sizes)) > _LARGEST_SHUFFLE:
        return None
    positions = np.arange(int(np.prod(sizes)))
    start = positions.reshape(sizes)
    current = start
    for node in chain:
        name = operator_name(node)
        if name == "permute":
            current = current.transpose(argument(node, "dims"))
        elif name in ("transpose", "swapaxes"):
            first = argument(node, "dim0", argument(node, "axis0"))
            second = argument(node, "dim1", argument(node, "axis1"))
            current = current.swapaxes(first, second)
        elif name == "movedim":
            return None
        else:
            shape = [small.get(size, size) for size in shapes[node]]
            if int(np.prod(shape)) != current.size:
                return None
            current = current.reshape(shape)
    if current.shape != start.shape:
        return None
    inner = int(np.prod(sizes[2:]))
    order = current.reshape(sizes[0], sizes[1], inner)[0, :, 0] // inner
    if sorted(order.tolist()) != list(range(sizes[1])) or not np.array_equal(start[:, order], current):
        return None
    return order


def _replace_by_selection(module: fx.GraphModule, last: fx.Node, source: Any, order: Any, number: int) -> None:
    index = torch.as_tensor(np.ascontiguousarray(order), dtype=torch.int64)
    held = hold_constant(module, last, f"channel_orders.order_{number}", index)
    last.replace_all_uses_with(insert(last, aten.index_select.default, (source, 1, held)))
