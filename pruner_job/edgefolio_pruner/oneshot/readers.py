"""Linear maps of a graph that can be re-fitted: convolution or linear layer, batch norm, and a residual sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgefolio_pruner.spatial import ChannelGroup, channel_floor
from edgefolio_pruner.spatial.graph.nodes import argument

aten = torch.ops.aten
#: Widest map that is re-fitted without losing columns; beyond, the cost exceeds the gain.
WIDEST_REPAIR = 2304
#: Fewest channels that a group keeps, absolute and in percent of what it had.
LEAST_CHANNELS = 4
LEAST_PERCENT = 8

_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding, aten.convolution.default)


def channel_step(channels: int) -> int:
    """A group of ``channels`` is cut to a multiple of this; why: :func:`~edgefolio_pruner.spatial.channel_floor`."""
    return 8 if channels >= 64 else 4 if channels >= 8 else 1


def least_channels(channels: int) -> int:
    """The number of channels that a group of ``channels`` always keeps."""
    return channel_floor(channels, least=LEAST_CHANNELS, percent=LEAST_PERCENT, block=channel_step(channels))


@dataclass(frozen=True)
class Norm:
    """A batch norm in evaluation mode: one factor and one offset per output."""

    node: fx.Node
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    def scale(self, state: dict[str, torch.Tensor]) -> torch.Tensor:
        """The factor per output [o], float64."""
        scale = (state[self.variance].double() + self.epsilon).rsqrt()
        return scale if self.weight is None else scale * state[self.weight].double()


@dataclass(frozen=True)
class Reader:
    """A linear map of the graph: ``node`` reads ``source``; its output goes through ``norm`` into ``end``.

    ``group`` are the channels it reads and may lose; None for a map that loses none and is only re-fitted because its
    input has changed. ``end`` is the last node that is still affine in the map's output: the map itself, its batch
    norm, or the sum with ``skip`` in which a residual block ends (never for a map without a group: the block's last
    layer is fitted to that sum). ``geometry`` is None for a linear layer. ``blocks`` [channels, columns]: the columns
    of the flattened weight that read each input channel.
    """

    layer: str
    group: ChannelGroup | None
    node: fx.Node
    source: fx.Node
    weight: str
    bias: str | None
    norm: Norm | None
    end: fx.Node
    skip: fx.Node | None
    geometry: Geometry | None
    blocks: torch.Tensor

    @property
    def chain(self) -> tuple[fx.Node, ...]:
        """The nodes to run again when the map has changed."""
        nodes = [self.node]
        if self.norm is not None:
            nodes.append(self.norm.node)
        if self.end not in nodes:
            nodes.append(self.end)
        return tuple(nodes)

    @property
    def held(self) -> tuple[tuple[fx.Node, fx.Node], ...]:
        """Values that a run must hold when it stops at the end: (node, until) pairs."""
        nodes = [self.source, self.end] if self.skip is None else [self.source, self.end, self.skip]
        return tuple((node, self.end) for node in nodes)

    @property
    def intercept(self) -> bool:
        """Whether the map can take a new offset."""
        return self.bias is not None or self.norm is not None


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, padding and dilation of a two-dimensional convolution."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def find_readers(
    graph: fx.Graph, state: dict[str, torch.Tensor], groups: tuple[ChannelGroup, ...]
) -> tuple[tuple[Reader, ...], dict[str, str]]:
    """The maps to re-fit, in the order in which their ends run, and the reasons why other groups are left out.

    They include the reader of every group that can be pruned without training, and maps that run after the first of
    these: earlier maps have unchanged inputs.
    """
    uses: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            uses.setdefault(str(node.target), []).extend(node.users)
    readers: dict[fx.Node, Reader] = {}
    left_out: dict[str, str] = {}
    for group in groups:
        found = _reader_of(group, uses, state)
        if isinstance(found, Reader):
            readers[found.node] = found
        else:
            left_out[group.name] = found
    position = {node: index for index, node in enumerate(graph.nodes)}
    first = min((position[reader.end] for reader in readers.values()), default=len(position))
    for node in graph.nodes:
        if node not in readers and position[node] > first and node.target in (*_CONVOLUTIONS, aten.linear.default):
            found = _map_at(node, None, uses, state)
            if isinstance(found, Reader) and found.intercept and found.blocks.numel() <= WIDEST_REPAIR:
                readers[node] = found
    return tuple(sorted(readers.values(), key=lambda reader: position[reader.end])), left_out


def _reader_of(group: ChannelGroup, uses: dict[str, list[fx.Node]], state: dict[str, torch.Tensor]) -> Reader | str:
    if not group.prunable:
        return group.reason or "not prunable"
    if group.kind != "inner":
        return "its channels join a stream with several writers or readers"
    written = {part.parameter for part in group.writers}
    parts = [part for part in group.readers if part.parameter not in written]
    if len(parts) != 1:
        return f"it has {len(parts)} readers, not one"
    if group.channels <= least_channels(group.channels):
        return f"it has only {group.channels} channels"
    part = parts[0]
    nodes = uses.get(part.parameter, [])
    if len(nodes) != 1:
        return f"its reader {part.parameter} is used {len(nodes)} times"
    if part.axis != 1:
        return f"{part.parameter} reads it in an unusual way"
    return _map_at(nodes[0], group, uses, state)


def _map_at(
    node: fx.Node, group: ChannelGroup | None, uses: dict[str, list[fx.Node]], state: dict[str, torch.Tensor]
) -> Reader | str:
    if node.target not in (*_CONVOLUTIONS, aten.linear.default):
        return f"its reader is {node.target}"
    name = _parameter(argument(node, "weight"))
    source = argument(node, "input")
    if name is None or len(uses[name]) != 1 or not isinstance(source, fx.Node) or source.op == "get_attr":
        return "its reader's weights are not used once, as they are"
    weight = state[name]
    geometry: Geometry | None = None
    if node.target is not aten.linear.default:
        found = _geometry(node, weight)
        if isinstance(found, str):
            return found
        geometry = found
    indices: tuple[tuple[int, ...], ...]
    if group is None:
        indices = tuple((channel,) for channel in range(weight.shape[1]))
    else:
        indices = next(part for part in group.readers if part.parameter == name).indices
    blocks = _blocks(indices, weight)
    if blocks is None:
        return f"it covers only a part of what {name} reads"
    bias = _parameter(argument(node, "bias"))
    norm, end, skip = _tail(node, uses)
    if group is None and skip is not None:
        end, skip = (node if norm is None else norm.node), None
    return Reader(
        layer=name.removesuffix(".weight"),
        group=group,
        node=node,
        source=source,
        weight=name,
        bias=bias if bias is not None and len(uses[bias]) == 1 else None,
        norm=norm,
        end=end,
        skip=skip,
        geometry=geometry,
        blocks=blocks,
    )


def _blocks(indices: tuple[tuple[int, ...], ...], weight: torch.Tensor) -> torch.Tensor | None:
    taps = weight[0, 0].numel()
    if len({len(positions) for positions in indices}) != 1:
        return None
    inputs = torch.tensor(indices)
    if sorted(inputs.reshape(-1).tolist()) != list(range(weight.shape[1])):
        return None
    columns = inputs[:, :, None] * taps + torch.arange(taps)
    return columns.reshape(len(indices), -1)


def _geometry(node: fx.Node, weight: torch.Tensor) -> Geometry | str:
    if weight.ndim != 4:
        return "its reader is not a two-dimensional convolution"
    if argument(node, "groups", 1) != 1:
        return "its reader is a grouped convolution"
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


def _tail(node: fx.Node, uses: dict[str, list[fx.Node]]) -> tuple[Norm | None, fx.Node, fx.Node | None]:
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
            return norm, user, sides[0]
    return norm, end, None


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
