"""The channels of a program: which value carries which, and which must live and die together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import tensor_inputs
from edgefolio_pruner.spatial.graph.program import Program
from edgefolio_pruner.spatial.positions import Positions, UnfollowedError
from edgefolio_pruner.spatial.roles import Barrier, Contraction, Output, Role

__all__ = ["Structure", "build_structure"]


@dataclass
class Structure:
    """Roles and channels of every tensor of a program.

    ``channels[node]`` describes which channel (a number below ``count``) each slot of the node's value holds. Two
    slots hold the same channel if removing one forces the other to be removed. ``pinned`` maps channels that can never
    be removed to the reason.
    """

    program: Program
    roles: dict[fx.Node, Role]
    channels: dict[fx.Node, Positions]
    count: int
    pinned: dict[int, str]
    pinned_mask: NDArray[np.bool_]

    def contractions(self) -> list[tuple[fx.Node, Contraction]]:
        """All convolutions and linear layers in order of execution."""
        return [(node, role) for node, role in self.roles.items() if isinstance(role, Contraction)]

    def barriers(self) -> list[tuple[fx.Node, Barrier]]:
        """All operators without a transfer function."""
        return [(node, role) for node, role in self.roles.items() if isinstance(role, Barrier)]


@dataclass
class Builder:
    """Collects roles, provisional channel numbers and ties while the program is walked."""

    program: Program
    roles: dict[fx.Node, Role] = field(default_factory=dict)
    channels: dict[fx.Node, Positions] = field(default_factory=dict)
    count: int = 0
    ties: list[tuple[Positions, Positions]] = field(default_factory=list)
    pins: list[tuple[Positions, str]] = field(default_factory=list)
    rows: dict[str, Positions] = field(default_factory=dict)
    columns: dict[str, Positions] = field(default_factory=dict)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of the node's value."""
        return self.program.shapes[node]

    def fresh(self, *lengths: int) -> Positions:
        """New channels, as an array of the given shape."""
        number = int(np.prod(lengths, dtype=np.int64))
        start = self.count
        self.count += number
        return np.arange(start, start + number, dtype=np.int64).reshape(lengths)

    def tie(self, first: Positions, second: Positions) -> None:
        """These channels are one, pairwise."""
        first, second = np.broadcast_arrays(first, second)
        different = first != second
        if different.any():
            self.ties.append((first[different], second[different]))

    def pin(self, channels: Positions, reason: str) -> None:
        """These channels can never be removed."""
        self.pins.append((channels.ravel(), reason))

    def tie_weight(self, name: str, rows: Positions, columns: Positions) -> None:
        """Channels that the rows and columns of one weight stand for agree at all its call sites."""
        for known, channels in ((self.rows, rows), (self.columns, columns)):
            if name not in known:
                known[name] = channels
            elif known[name].shape == channels.shape:
                self.tie(known[name], channels)
            else:
                self.pin(known[name], "a weight shared in two roles")
                self.pin(channels, "a weight shared in two roles")

    def set_barrier(self, node: fx.Node, reason: str) -> None:
        """Give ``node`` the role of a barrier; its value is one channel that stays."""
        inputs = tuple(source for source in tensor_inputs(node) if source in self.channels)
        for source in inputs:
            self.pin(self.channels[source], reason)
        self.roles[node] = Barrier(inputs, reason)
        rank = len(self.program.shapes.get(node, ()))
        same = [s for s in inputs if self.shape(s) == self.program.shapes.get(node)]
        # Where the shape is that of an input, channels are taken to keep their places: they stay, so this is safe.
        self.channels[node] = self.channels[same[0]] if len(same) == 1 else self.fresh(*([1] * rank))
        self.pin(self.channels[node], reason)


def build_structure(program: Program) -> Structure:
    """Assign roles and channels to every node of ``program``."""
    from edgefolio_pruner.spatial.operators.registry import assign_role

    builder = Builder(program)
    for node in program.nodes:
        if node.op == "output":
            outputs = tuple(source for source in node.all_input_nodes if source in builder.channels)
            for source in outputs:
                builder.pin(builder.channels[source], "network output")
            builder.roles[node] = Output(outputs)
        elif node.op == "get_attr" or node not in program.shapes:
            # Constants get a role where they are used; sizes carry no channels.
            continue
        else:
            try:
                assign_role(builder, node)
            except UnfollowedError as error:
                builder.set_barrier(node, f"operator {node.target}: {error}")
            _keep_rectangular(builder, node)
    return _resolve(builder)


def _keep_rectangular(builder: Builder, node: fx.Node) -> None:
    """Channels spread over several axes: whole slices along the last of them are removed, or nothing."""
    channels = builder.channels[node]
    axes = [axis for axis in range(channels.ndim) if channels.shape[axis] > 1]
    if len(axes) > 1:
        last = [1] * channels.ndim
        last[axes[-1]] = channels.shape[axes[-1]]
        arranged = np.moveaxis(channels, axes[-1], -1).reshape(-1, channels.shape[axes[-1]])
        builder.tie(arranged[:1], arranged)
        builder.channels[node] = np.broadcast_to(arranged[0].reshape(last), channels.shape)


def _resolve(builder: Builder) -> Structure:
    if builder.ties:
        first = np.concatenate([tie[0].ravel() for tie in builder.ties])
        second = np.concatenate([tie[1].ravel() for tie in builder.ties])
        graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(builder.count, builder.count))
        count, final = connected_components(graph, directed=False)
        final = final.astype(np.int64)
    else:
        count, final = builder.count, np.arange(builder.count, dtype=np.int64)
    pinned: dict[int, str] = {}
    mask = np.zeros(count, dtype=bool)
    for channels, reason in builder.pins:
        for channel in np.unique(final[channels]).tolist():
            pinned.setdefault(channel, reason)
            mask[channel] = True
    channels_of = {node: final[channels] for node, channels in builder.channels.items()}
    return Structure(builder.program, builder.roles, channels_of, int(count), pinned, mask)
