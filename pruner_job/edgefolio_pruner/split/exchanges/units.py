"""Units: channels that one worker owns together, and the families of which each worker owns a part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.roles import (
    Attention,
)
from edgefolio_pruner.spatial.structure import Structure
from edgefolio_pruner.split.exchanges.points import Family, Integers

__all__ = ["families_of", "require_owned", "units_of"]

Mask = NDArray[np.bool_]
_WHOLE = -1


def units_of(structure: Structure, replicated: dict[fx.Node, bool], partial: set[fx.Node], without: Mask) -> Integers:
    """Channels that one worker owns together: those of one group of a grouped convolution, of one head of attention."""
    together: list[Integers] = []
    for node, role in structure.contractions():
        if role.groups > 1 and not replicated[node]:
            read = structure.channels[role.source].ravel()[role.columns]
            rows = structure.channels[node].reshape(role.groups, role.outputs_per_group)
            together.append(np.concatenate([read, rows], axis=1))
    for node, attention in structure.roles.items():
        if isinstance(attention, Attention) and not replicated[node]:
            heads = [
                attention.by_head(structure.channels[source], structure.program.shapes[source][-1])
                for source in (attention.query, attention.value)
            ]
            together.append(np.concatenate(heads, axis=1))
    first = [np.broadcast_to(joined[:, :1], joined.shape).ravel() for joined in together]
    second = [joined.ravel() for joined in together]
    labels = np.arange(structure.count)
    if first:
        pairs = (np.concatenate(first), np.concatenate(second))
        graph = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(structure.count,) * 2)
        labels = connected_components(graph, directed=False)[1].astype(np.int64)
    unit = np.full(structure.count, _WHOLE, dtype=np.int64)
    numbers: dict[int, int] = {}
    # Numbered in the order in which the network computes them, so that neighbours are neighbours.
    for node, channels in structure.channels.items():
        if replicated.get(node) or node in partial:
            continue
        for channel in channels.ravel().tolist():
            if unit[channel] == _WHOLE and not without[channel]:
                unit[channel] = numbers.setdefault(int(labels[channel]), len(numbers))
    return unit


def require_owned(structure: Structure, unit: Integers, replicated: dict[fx.Node, bool], partial: set[fx.Node]) -> None:
    """Raise :class:`~edgefolio.errors.UserError` where an owned layer computes channels that everybody needs whole."""
    for node, role in structure.contractions():
        if not replicated[node] and node not in partial and (unit[structure.channels[node]] < 0).any():
            raise UserError(
                "some channels of this layer are tied to a value that every worker needs whole.",
                field="--workers",
                value=str(role.weight.target),
                remedy="Serve it on one node; this model cannot be divided.",
            )


def families_of(
    structure: Structure, unit: Integers, replicated: dict[fx.Node, bool], partial: set[fx.Node]
) -> tuple[Family, ...]:
    """Families of units, each named after its first layer, in the order in which the network computes them."""
    count = int(unit.max()) + 1 if unit.size else 0
    rows: list[tuple[str, Integers]] = []
    for node, role in structure.contractions():
        if not replicated[node] and node not in partial:
            found = np.unique(unit[structure.channels[node].ravel()])
            rows.append((str(role.weight.target).removesuffix(".weight"), found[found >= 0]))
    if not rows:
        return ()
    first = np.concatenate([np.full(len(units), units[0]) for _, units in rows])
    second = np.concatenate([units for _, units in rows])
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    families: dict[int, Family] = {}
    for name, units in rows:
        label = int(labels[units[0]])
        if label not in families:
            families[label] = Family(name, np.flatnonzero(labels == label).astype(np.int64))
    return tuple(families.values())
