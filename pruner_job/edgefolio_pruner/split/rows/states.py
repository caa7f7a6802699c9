"""States of values under a division by rows: which have a band for each worker, and what ends the rows.

Convolutions, pools, elementwise operators, batch norms, sums and concatenations have row rules. A mean over all
positions whose result only linear layers read is a partial sum, which the entry adds up. In front of any other operator
all rows are gathered, and everybody computes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import fx

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph.program import Program
from edgefolio_pruner.spatial.roles import Map
from edgefolio_pruner.split.rows.bands import Window, band_edges

__all__ = ["WINDOWED", "RowStates", "State", "row_states", "windows_of"]

aten = torch.ops.aten
#: ``whole``: every worker has all of it; ``rows``: its band; ``part``: a term of a sum.
State = Literal["whole", "rows", "part"]
WINDOWED = ("conv2d", "max_pool2d", "avg_pool2d")
_MEANS = ("adaptive_avg_pool2d", "mean")
_LINEAR = ("flatten", "reshape", "squeeze", "unsqueeze", "linear")


@dataclass
class RowStates:
    """The state of each value, and of those that are gathered the reason."""

    program: Program
    shares: tuple[int, ...]
    maps: set[fx.Node]
    states: dict[fx.Node, State] = field(default_factory=dict)
    gathered: dict[fx.Node, str] = field(default_factory=dict)
    #: Layers with too few rows, of what everybody has: everybody computes them.
    low: list[fx.Node] = field(default_factory=list)


def row_states(program: Program, shares: Sequence[int], *, field: str) -> RowStates:
    """The states of a program. Raises :class:`UserError` if no layer has rows, or a map too few of them."""
    structure = build_structure(program)
    maps = {node for node, role in structure.roles.items() if isinstance(role, Map)}
    builder = RowStates(program, tuple(shares), maps)
    for node in program.nodes:
        if node in program.shapes and node.op != "get_attr":
            builder.states[node] = _state(builder, node)
        elif node.op == "output":
            for source in node.all_input_nodes:
                if builder.states[source] == "rows":
                    builder.gathered.setdefault(source, "the network's output")
    banded = [node for node, state in builder.states.items() if state == "rows"]
    if not banded and builder.low:
        raise _too_low(builder, builder.low[0], field)
    if not banded:
        raise UserError(
            "no layer of this model has rows that could be divided.",
            field=field,
            value="Rows",
            remedy="Give Channels: only convolutions over images and what follows them are divided by rows.",
        )
    for node in banded:
        if _is_low(builder, node):
            raise _too_low(builder, node, field)
    return builder


def _is_low(builder: RowStates, node: fx.Node) -> bool:
    edges = band_edges(builder.program.shapes[node][2], builder.shares)
    return any(left >= right for left, right in pairwise(edges))


def _too_low(builder: RowStates, node: fx.Node, field: str) -> UserError:
    rows = builder.program.shapes[node][2]
    return UserError(
        f"layer {node.name} has {rows} rows, too few for the shares of {len(builder.shares)} workers.",
        field=field,
        value="Rows",
        remedy="Give fewer workers, larger images, or Channels.",
    )


def windows_of(node: fx.Node, program: Program) -> tuple[Window, Window]:
    """What a convolution or pool reads along height and width."""
    name = operator_name(node)
    if name == "conv2d":
        kernel = list(program.shapes[argument(node, "weight")][2:])
        stride, dilation = _pair(argument(node, "stride")), _pair(argument(node, "dilation"))
    else:
        kernel = _pair(argument(node, "kernel_size"))
        given = argument(node, "stride")
        stride = _pair(given) if given else kernel
        dilation = _pair(argument(node, "dilation")) if name == "max_pool2d" else [1, 1]
    padding = argument(node, "padding")
    if padding == "same":
        before = [dilation[axis] * (kernel[axis] - 1) // 2 for axis in (0, 1)]
    else:
        before = [0, 0] if padding == "valid" else _pair(padding)
    first, second = (Window(kernel[axis], stride[axis], before[axis], dilation[axis]) for axis in (0, 1))
    return first, second


def _pair(value: Any) -> list[int]:
    values = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return values * 2 if len(values) == 1 else values


def _state(builder: RowStates, node: fx.Node) -> State:
    """The state of a value, once what it reads is taken care of."""
    if node.op == "placeholder":
        return "whole"
    sources = [source for source in node.all_input_nodes if source in builder.states]
    shape, name = builder.program.shapes[node], operator_name(node)
    states = {builder.states[source] for source in sources}
    if states == {"part"}:
        return "part"
    is_image = len(shape) == 4 and all(isinstance(size, int) for size in shape[2:])
    if is_image and name in WINDOWED:
        (source,) = sources
        # Of what everybody has, as of the input, each takes the rows that it needs.
        if builder.states[source] == "whole" and _is_low(builder, node):
            # As in a gate over the channels, behind a mean of all positions.
            builder.low.append(node)
            return "whole"
        return "rows"
    if "rows" not in states:
        return "whole"
    if is_image and _keeps_rows(builder, node, sources):
        return "rows"
    if name in _MEANS and _is_mean_of_all(builder, node) and _is_linear_tail(node):
        return "part"
    for source in sources:
        if builder.states[source] == "rows":
            builder.gathered.setdefault(source, f"operator {node.target} ({node.name})")
    return "whole"


def _keeps_rows(builder: RowStates, node: fx.Node, sources: Sequence[fx.Node]) -> bool:
    """Whether each row of the result depends on the same row of the operands alone."""
    shapes, rows = builder.program.shapes, builder.program.shapes[node][2]
    images = [source for source in sources if len(shapes[source]) == 4 and shapes[source][2] == rows and rows > 1]
    if node in builder.maps:
        others = [source for source in node.all_input_nodes if source in shapes and source not in images]
        return all(len(shapes[other]) < 2 or shapes[other][-2] == 1 or _is_statistics(node, other) for other in others)
    if operator_name(node) == "cat":
        return len(images) == len(set(node.all_input_nodes)) and int(argument(node, "dim")) % 4 == 1
    if operator_name(node) == "index_select":
        return int(argument(node, "dim")) % 4 == 1
    return False


def _is_statistics(node: fx.Node, other: fx.Node) -> bool:
    """Whether ``other`` is a vector along the channels: of a batch norm, or slopes."""
    return other.op == "get_attr" and operator_name(node) in ("batch_norm", "prelu", "_prelu_kernel")


def _is_mean_of_all(builder: RowStates, node: fx.Node) -> bool:
    if operator_name(node) == "adaptive_avg_pool2d":
        return tuple(builder.program.shapes[node][2:]) == (1, 1)
    axes = argument(node, "dim")
    source = node.args[0]
    return (
        isinstance(axes, (list, tuple))
        and isinstance(source, fx.Node)
        and sorted(axis % 4 for axis in axes) == [2, 3]
        and argument(node, "dtype") is None
    )


def _is_linear_tail(node: fx.Node) -> bool:
    """Whether only linear operators follow, up to the outputs: then terms can be added at the end."""
    for user in node.users:
        if user.op == "output":
            continue
        activations = [source for source in user.all_input_nodes if source.op == "call_function"]
        if operator_name(user) not in _LINEAR or activations != [node] or not _is_linear_tail(user):
            return False
    return bool(node.users)
