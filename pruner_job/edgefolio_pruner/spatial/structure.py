"""The channels of a program: which slots of which values hold which channel, with ties resolved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.program import Program
from edgefolio_pruner.spatial.positions import Positions
from edgefolio_pruner.spatial.roles import Attention, Barrier, Contraction, Role

__all__ = ["Structure"]


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

    def attentions(self) -> list[tuple[fx.Node, Attention]]:
        """All attention in order of execution."""
        return [(node, role) for node, role in self.roles.items() if isinstance(role, Attention)]

    def barriers(self) -> list[tuple[fx.Node, Barrier]]:
        """All operators without a transfer function."""
        return [(node, role) for node, role in self.roles.items() if isinstance(role, Barrier)]
