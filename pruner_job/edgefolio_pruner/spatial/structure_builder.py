"""Builder of a :class:`Structure`: rules of operators give values channels and tie those that go together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import tensor_inputs
from edgefolio_pruner.spatial.graph.program import Program
from edgefolio_pruner.spatial.positions import Positions
from edgefolio_pruner.spatial.roles import Barrier, Role
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["Builder"]


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

    def build(self) -> Structure:
        """The structure: tied channels have one number."""
        if self.ties:
            first = np.concatenate([tie[0].ravel() for tie in self.ties])
            second = np.concatenate([tie[1].ravel() for tie in self.ties])
            graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(self.count, self.count))
            count, final = connected_components(graph, directed=False)
            final = final.astype(np.int64)
        else:
            count, final = self.count, np.arange(self.count, dtype=np.int64)
        pinned: dict[int, str] = {}
        mask = np.zeros(count, dtype=bool)
        for channels, reason in self.pins:
            for channel in np.unique(final[channels]).tolist():
                pinned.setdefault(channel, reason)
                mask[channel] = True
        channels_of = {node: final[channels] for node, channels in self.channels.items()}
        return Structure(self.program, self.roles, channels_of, int(count), pinned, mask)
