"""Exchanges and units of a divided network, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.roles import (
    Contraction,
)
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["Divided", "ExchangePoint", "Family", "Integers", "Kind", "depths_of"]

Integers = NDArray[np.int64]
#: ``send``: each worker gets some of the others' channels; ``gather``: all of them; ``take``: nothing travels, each
#: worker takes its own channels of a value that all have.
Kind = Literal["send", "gather", "take"]


@dataclass(frozen=True, eq=False)
class ExchangePoint:
    """One exchange: ``source`` before, ``node`` behind it, in a structure with both.

    ``place`` names the layer that reads it. Along ``axis``, that of the channels, ``units[slot]`` is the unit of each
    position and ``blocks[slot]`` its channel, counted from 0: the places of a flattened channel travel together. A slot
    travels as ``elements`` numbers a sample. ``readers`` are the layers that read it, ``reason`` says why all of it is
    needed (of a gather).
    """

    name: str
    kind: Kind
    source: fx.Node
    node: fx.Node
    axis: int
    units: Integers
    blocks: Integers
    elements: int
    readers: tuple[tuple[fx.Node, Contraction], ...]
    place: str
    reason: str

    @property
    def block_units(self) -> Integers:
        """The unit of each block."""
        found = np.zeros(int(self.blocks.max()) + 1, dtype=np.int64)
        found[self.blocks] = self.units
        return found


@dataclass(frozen=True, eq=False)
class Family:
    """Units that one layer, or several that write to one stream, compute; each worker owns a part of every family."""

    name: str
    units: Integers


@dataclass(frozen=True, eq=False)
class Divided:
    """A network with exchanges. ``unit[channel]`` is the unit of each channel, -1 for those that every worker has.

    ``partial`` are the last layers: every worker computes all of their outputs from its own inputs, and the entry adds
    them up. ``gathered`` names operators without a transfer function, and where they are.
    """

    structure: Structure
    unit: Integers
    families: tuple[Family, ...]
    points: tuple[ExchangePoint, ...]
    partial: tuple[fx.Node, ...]
    gathered: tuple[str, ...]

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.unit.max()) + 1 if self.unit.size else 0


def depths_of(divided: Divided, names: frozenset[str]) -> dict[str, int]:
    """For each of these exchanges, how many of them lie on the longest way from the input up to it, itself counted."""
    counted = {point.node: point.name for point in divided.points if point.name in names}
    depths: dict[fx.Node, int] = {}
    for node in divided.structure.program.nodes:
        above = max((depths[source] for source in node.all_input_nodes), default=0)
        depths[node] = above + (node in counted)
    return {name: depths[node] for node, name in counted.items()}
