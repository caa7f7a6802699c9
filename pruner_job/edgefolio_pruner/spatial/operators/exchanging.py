"""Exchange of channels between workers: an identity that :mod:`edgefolio_pruner.split` writes into a graph.

It is written as ``alias``, which capturing removes: no captured graph holds one.
"""

from __future__ import annotations

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.operators.moves import source_of
from edgefolio_pruner.spatial.operators.operator import Operator
from edgefolio_pruner.spatial.roles import Exchange
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["OPERATORS"]


def _exchange(builder: Builder, node: fx.Node) -> None:
    source = source_of(node)
    if source not in builder.channels:
        builder.set_barrier(node, f"operator {node.target} of a constant")
        return
    # Slots of one channel, such as its places after a flattening, stay one channel.
    channels, places = np.unique(builder.channels[source], return_inverse=True)
    builder.channels[node] = builder.fresh(len(channels))[places.reshape(builder.channels[source].shape)]
    builder.roles[node] = Exchange(source)


OPERATORS = {"alias": Operator(_exchange)}
