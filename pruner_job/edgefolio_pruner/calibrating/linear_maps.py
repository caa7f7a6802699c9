"""Linear maps of a graph that can be re-fitted: convolution or linear layer, batch norm, and a residual sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import argument

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding, aten.convolution.default)
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Norm:
    """A batch norm in evaluation mode: one factor and one offset per output."""

    node: fx.Node
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    def scale(self, state: State) -> torch.Tensor:
        """The factor per output [o], float64."""
        scale = (state[self.variance].double() + self.epsilon).rsqrt()
        return scale if self.weight is None else scale * state[self.weight].double()


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, padding and dilation of a two-dimensional convolution."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map of the graph: ``node`` reads ``source``; its output goes through ``norm`` into ``end``.

    ``end`` is the last node that is still affine in the map's output: the map itself, its batch norm, or the sum with
    ``skip`` in which a residual block ends. ``geometry`` is None for a linear layer. ``inputs`` and ``outputs`` are
    those of one of its ``groups``; each input channel has ``taps`` columns in the flattened weight.
    """

    layer: str
    node: fx.Node
    source: fx.Node
    weight: str
    bias: str | None
    norm: Norm | None
    end: fx.Node
    skip: fx.Node | None
    geometry: Geometry | None
    groups: int
    inputs: int
    outputs: int

    @property
    def taps(self) -> int:
        """Columns of the flattened weight per input channel."""
        return 1 if self.geometry is None else self.geometry.kernel[0] * self.geometry.kernel[1]

    @property
    def columns(self) -> int:
        """Columns of the flattened weight."""
        return self.inputs * self.taps

    @property
    def chain(self) -> tuple[fx.Node, ...]:
        """The nodes to run again when the map has changed."""
        nodes = [self.node] if self.norm is None else [self.node, self.norm.node]
        return tuple(nodes if self.end in nodes else [*nodes, self.end])

    @property
    def held(self) -> tuple[tuple[fx.Node, fx.Node], ...]:
        """Values that a run must hold when it stops at the end: (node, until) pairs."""
        nodes = [self.source, self.end] if self.skip is None else [self.source, self.end, self.skip]
        return tuple((node, self.end) for node in nodes)

    @property
    def intercept(self) -> bool:
        """Whether the map can take a new offset."""
        return self.bias is not None or self.norm is not None

    def folded(self, state: State, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """The weights with the batch norm folded in, as columns by outputs [columns, groups * outputs]."""
        weights = state[self.weight].to(dtype).flatten(1).T
        return weights if self.norm is None else weights * self.norm.scale(state).to(dtype)


def linear_maps(graph: fx.Graph, state: State) -> tuple[tuple[LinearMap, ...], dict[str, str]]:
    """The maps in the order in which their ends run, and by name of weight why other layers cannot be re-fitted.

    Where two maps end in one sum, the one with more columns is fitted to the sum, the other to its own output.
    """
    uses: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            uses.setdefault(str(node.target), []).extend(node.users)
    found: list[tuple[LinearMap, _Sum | None]] = []
    refused: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        name = _parameter(argument(node, "weight"))
        if name is None or state[name].ndim < 2:
            continue
        made = _map_at(node, name, uses, state)
        if isinstance(made, str):
            refused[name] = made
        else:
            found.append(made)
    best: dict[fx.Node, LinearMap] = {}
    for linear, total in found:
        if total is not None and (total.node not in best or linear.columns > best[total.node].columns):
            best[total.node] = linear
    maps = [
        linear if total is None or best[total.node] is not linear else _ending_in(linear, total)
        for linear, total in found
    ]
    position = {node: index for index, node in enumerate(graph.nodes)}
    return tuple(sorted(maps, key=lambda linear: position[linear.end])), refused


@dataclass(frozen=True)
class _Sum:
    """A sum that a map's output goes into, and its other operand."""

    node: fx.Node
    skip: fx.Node


def _ending_in(linear: LinearMap, total: _Sum) -> LinearMap:
    values = {name: getattr(linear, name) for name in LinearMap.__dataclass_fields__}
    return LinearMap(**values | {"end": total.node, "skip": total.skip})


def _map_at(
    node: fx.Node, name: str, uses: dict[str, list[fx.Node]], state: State
) -> tuple[LinearMap, _Sum | None] | str:
    if node.target not in (*_CONVOLUTIONS, aten.linear.default):
        return f"its reader is {node.target}"
    source = argument(node, "input")
    if len(uses[name]) != 1:
        return f"its reader {name} is used {len(uses[name])} times"
    if not isinstance(source, fx.Node) or source.op == "get_attr":
        return "its reader's input is not an activation"
    if not _has_samples_first(node):
        return "its reader does not have the samples on axis 0"
    weight = state[name]
    geometry: Geometry | None = None
    groups = 1
    if node.target is not aten.linear.default:
        made = _geometry(node, weight)
        if isinstance(made, str):
            return made
        geometry, groups = made, int(argument(node, "groups", 1))
    bias = _parameter(argument(node, "bias"))
    norm, total = _tail(node, uses)
    linear = LinearMap(
        layer=name.removesuffix(".weight"),
        node=node,
        source=source,
        weight=name,
        bias=bias if bias is not None and len(uses[bias]) == 1 else None,
        norm=norm,
        end=node if norm is None else norm.node,
        skip=None,
        geometry=geometry,
        groups=groups,
        inputs=int(weight.shape[1]),
        outputs=int(weight.shape[0]) // groups,
    )
    return linear, total


def _geometry(node: fx.Node, weight: torch.Tensor) -> Geometry | str:
    if weight.ndim != 4:
        return "its reader is not a two-dimensional convolution"
    if argument(node, "transposed", False):
        return "its reader is a transposed convolution"
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    stride, dilation = _pair(argument(node, "stride", 1)), _pair(argument(node, "dilation", 1))
    padding = argument(node, "padding", 0)
    if padding == "valid":
        padding = 0
    if padding == "same":
        spread = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
        if spread[0] % 2 or spread[1] % 2:
            return "its reader pads unevenly"
        padding = [spread[0] // 2, spread[1] // 2]
    return Geometry(kernel=kernel, stride=stride, padding=_pair(padding), dilation=dilation)


def _tail(node: fx.Node, uses: dict[str, list[fx.Node]]) -> tuple[Norm | None, _Sum | None]:
    """The batch norm and the residual sum that follow, each only if nothing else reads what comes before it."""
    norm: Norm | None = None
    end = node
    user = _only_user(end)
    if user is not None and user.target is aten.batch_norm.default and argument(user, "training", False) is False:
        names = [_parameter(argument(user, name)) for name in ("weight", "bias", "running_mean", "running_var")]
        mean, variance = names[2], names[3]
        if mean and variance and all(len(uses[name]) == 1 for name in names if name is not None):
            norm = Norm(user, names[0], names[1], mean, variance, float(argument(user, "eps")))
            end = user
            user = _only_user(end)
    if user is not None and user.target is aten.add.Tensor and argument(user, "alpha", 1) == 1:
        sides = [side for side in user.args[:2] if side is not end]
        if len(sides) == 1 and isinstance(sides[0], fx.Node) and _same_shape(sides[0], end):
            return norm, _Sum(user, sides[0])
    return norm, None


def _has_samples_first(node: fx.Node) -> bool:
    """Whether axis 0 of the value is the batch, and that alone."""
    first = next(other for other in node.graph.nodes if other.op == "placeholder")
    sizes = [getattr(other.meta.get("val"), "shape", None) for other in (first, node)]
    return sizes[0] is not None and sizes[1] is not None and bool(str(sizes[0][0]) == str(sizes[1][0]))


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _same_shape(left: fx.Node, right: fx.Node) -> bool:
    shapes = [getattr(node.meta.get("val"), "shape", None) for node in (left, right)]
    return shapes[0] is not None and shapes[0] == shapes[1]


def _parameter(value: Any) -> str | None:
    return str(value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = [int(size) for size in value]
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])
