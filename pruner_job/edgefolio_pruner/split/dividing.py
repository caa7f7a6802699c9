"""Division of a captured network: where workers exchange channels, and which channels go together.

Exchanges are inserted where a convolution or linear layer reads channels that other workers own, and where an operator
without a transfer function needs all of them. The channels are those of the exact compiler's structure, in which sums,
concatenations, depthwise layers and batch norms are resolved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.nodes import set_value
from edgefolio_pruner.spatial.graph.program import Program, lower
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.roles import (
    Attention,
    Barrier,
    Constant,
    Contraction,
    Exchange,
    Input,
    Map,
    Mixer,
    Move,
    Output,
)
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["Divided", "ExchangePoint", "Family", "depths_of", "divide"]

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: ``send``: each worker gets some of the others' channels; ``gather``: all of them; ``take``: nothing travels, each
#: worker takes its own channels of a value that all have.
Kind = Literal["send", "gather", "take"]
_SPREAD = "channels spread by broadcasting"
_WHOLE = -1


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


def divide(captured: CapturedModel) -> Divided:
    """The captured network with exchanges. Raises :class:`~edgefolio.errors.UserError` if nothing can be divided."""
    program = lower(captured)
    plain = build_structure(program)
    kinds, reasons, partial = _insert(program, plain)
    program = Program(captured, program.module, {**program.shapes, **_shapes_of_new(program)})
    structure = build_structure(program)
    replicated = _replicated(structure, kinds)
    whole = np.zeros(structure.count, dtype=bool)
    for node, channels in structure.channels.items():
        if replicated.get(node):
            whole[channels.ravel()] = True
    for node in partial:
        whole[structure.channels[node].ravel()] = True
    received = np.zeros(structure.count, dtype=bool)
    for node, kind in kinds.items():
        if kind == "send":
            received[structure.channels[node].ravel()] = True
    unit = _units(structure, replicated, set(partial), whole | received)
    _require_owned(structure, unit, replicated, set(partial))
    families = _families(structure, unit, replicated, set(partial))
    gathered = tuple(dict.fromkeys(reason for reason in reasons.values() if reason))
    points = _points(structure, unit, kinds, reasons)
    divided = Divided(structure, unit, families, points, partial, gathered)
    if not families:
        listed = f" Gathered: {'; '.join(gathered[:5])}." if gathered else ""
        raise UserError(
            f"no layer of this model can be divided over workers.{listed}",
            field="--workers",
            remedy="Serve it on one node; only layers between others are divided.",
        )
    return divided


def _shapes_of_new(program: Program) -> dict[fx.Node, tuple[int, ...]]:
    return {
        node: program.shapes[node.args[0]]
        for node in program.module.graph.nodes
        if node.op == "call_function" and node.target is torch.ops.aten.alias.default
    }


# --- insertion --------------------------------------------------------------------------------------------------------


def _operands(structure: Structure, role: Map | Move | Attention) -> tuple[fx.Node, ...]:
    sources = tuple(operand.node for operand in role.operands) if isinstance(role, Map) else role.sources
    return tuple(
        source
        for source in dict.fromkeys(sources)
        if source in structure.channels and not isinstance(structure.roles.get(source), Constant)
    )


def _is_spread(structure: Structure, node: fx.Node) -> bool:
    return any(structure.pinned.get(int(c)) == _SPREAD for c in np.unique(structure.channels[node]))


def _replicated(structure: Structure, kinds: dict[fx.Node, Kind]) -> dict[fx.Node, bool]:
    """Whether every worker has the whole of a value; an exchange that gathers gives it."""
    found: dict[fx.Node, bool] = {}
    for node, role in structure.roles.items():
        if isinstance(role, (Input, Barrier, Mixer, Constant)):
            found[node] = True
        elif isinstance(role, Exchange):
            found[node] = kinds[node] == "gather"
        elif isinstance(role, (Map, Move, Attention)):
            sources = _operands(structure, role)
            # What broadcasting spreads is computed by everybody, like a barrier.
            found[node] = all(found[source] for source in sources) or (
                isinstance(role, Map) and _is_spread(structure, node)
            )
        elif isinstance(role, Contraction):
            found[node] = role.groups > 1 and found[role.source]
    return found


def _insert(
    program: Program, structure: Structure
) -> tuple[dict[fx.Node, Kind], dict[fx.Node, str], tuple[fx.Node, ...]]:
    """Insert the exchanges: their kinds and, of those that gather, the reasons; and the last layers."""
    replicated = _replicated(structure, {})
    partial = tuple(
        node
        for node, role in structure.contractions()
        if role.groups == 1
        and not replicated[role.source]
        and len(role.weight.users) == 1
        and all(user.op == "output" for user in node.users)
    )
    wanted: dict[tuple[fx.Node, bool], list[fx.Node]] = {}
    reasons: dict[fx.Node, str] = {}
    for node, role in structure.roles.items():
        if isinstance(role, Contraction):
            if role.groups == 1 and not replicated[role.source] and node not in partial:
                wanted.setdefault((role.source, True), []).append(node)
        elif isinstance(role, (Barrier, Mixer, Output)) or (isinstance(role, Map) and _is_spread(structure, node)):
            sources = role.inputs if isinstance(role, (Barrier, Output)) else ()
            sources = (role.source,) if isinstance(role, Mixer) else sources or _operands_of(structure, role)
            for source in sources:
                if not replicated[source] and not (isinstance(role, Output) and source in partial):
                    wanted.setdefault((source, True), []).append(node)
                    reasons[source] = _reason(node, role)
        elif isinstance(role, (Map, Move, Attention)):
            sources = _operands(structure, role)
            mask = role.mask if isinstance(role, Attention) else None
            if mask in structure.channels and not replicated[mask]:
                wanted.setdefault((mask, True), []).append(node)
                reasons[mask] = f"the mask of an attention ({node.name})"
            if not all(replicated[source] for source in sources):
                # A single channel is spread over the others, not tied to them.
                least = 2 if isinstance(role, Map) else 1
                for source in sources:
                    if replicated[source] and structure.channels[source].size >= least:
                        wanted.setdefault((source, False), []).append(node)
    kinds: dict[fx.Node, Kind] = {}
    of_new: dict[fx.Node, str] = {}
    for (source, travels), users in wanted.items():
        with program.module.graph.inserting_after(source):
            new = program.module.graph.call_function(torch.ops.aten.alias.default, (source,))
        new.meta.update({key: value for key, value in source.meta.items() if key != "val"})
        set_value(new)
        for user in users:
            user.replace_input_with(source, new)
        kinds[new] = "take" if not travels else "gather" if source in reasons else "send"
        of_new[new] = reasons.get(source, "") if travels else ""
    program.module.graph.lint()
    return kinds, of_new, partial


def _operands_of(structure: Structure, role: object) -> tuple[fx.Node, ...]:
    return _operands(structure, role) if isinstance(role, (Map, Move, Attention)) else ()


def _reason(node: fx.Node, role: object) -> str:
    if isinstance(role, Output):
        return "the network's output"
    if isinstance(role, Barrier):
        return f"{role.reason} ({node.name})"
    return f"{node.target} mixes channels ({node.name})"


# --- units and families -----------------------------------------------------------------------------------------------


def _units(structure: Structure, replicated: dict[fx.Node, bool], partial: set[fx.Node], without: Mask) -> Integers:
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


def _require_owned(
    structure: Structure, unit: Integers, replicated: dict[fx.Node, bool], partial: set[fx.Node]
) -> None:
    for node, role in structure.contractions():
        if not replicated[node] and node not in partial and (unit[structure.channels[node]] < 0).any():
            raise UserError(
                "some channels of this layer are tied to a value that every worker needs whole.",
                field="--workers",
                value=str(role.weight.target),
                remedy="Serve it on one node; this model cannot be divided.",
            )


def _families(
    structure: Structure, unit: Integers, replicated: dict[fx.Node, bool], partial: set[fx.Node]
) -> tuple[Family, ...]:
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


def _points(
    structure: Structure, unit: Integers, kinds: dict[fx.Node, Kind], reasons: dict[fx.Node, str]
) -> tuple[ExchangePoint, ...]:
    points: list[ExchangePoint] = []
    for node, role in structure.roles.items():
        if not isinstance(role, Exchange):
            continue
        # What everybody has is owned where it is taken: in front, its channels are those of no unit.
        channels = structure.channels[node if kinds[node] == "take" else role.source]
        varied = [axis for axis in range(channels.ndim) if channels.shape[axis] > 1]
        axis = varied[-1] if varied else min(1, channels.ndim - 1)
        line = channels.reshape(-1, channels.shape[axis])[0] if varied else channels.ravel()
        shape = structure.program.shapes[role.source][1:]
        elements = int(np.prod([size for size in shape if size < LARGEST_STATIC_SIZE], dtype=np.int64)) // len(line)
        readers = tuple((user, structure.roles[user]) for user in node.users if user in structure.roles)
        points.append(
            ExchangePoint(
                name=f"x{len(points)}",
                kind=kinds[node],
                source=role.source,
                node=node,
                axis=axis,
                units=unit[line],
                blocks=_numbered(line),
                elements=elements,
                readers=tuple((user, reader) for user, reader in readers if isinstance(reader, Contraction)),
                place=_place(node, structure),
                reason=reasons.get(node, ""),
            )
        )
    return tuple(points)


def _numbered(line: Integers) -> Integers:
    """Equal numbers as 0, 1, ... in the order of their first appearance."""
    _, first, places = np.unique(line, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[places].astype(np.int64)


def _place(node: fx.Node, structure: Structure) -> str:
    for user in node.users:
        role = structure.roles.get(user)
        if isinstance(role, Contraction):
            return str(role.weight.target).removesuffix(".weight")
    return str(next(iter(node.users)).name)


def depths_of(divided: Divided, names: frozenset[str]) -> dict[str, int]:
    """For each of these exchanges, how many of them lie on the longest way from the input up to it, itself counted."""
    counted = {point.node: point.name for point in divided.points if point.name in names}
    depths: dict[fx.Node, int] = {}
    for node in divided.structure.program.nodes:
        above = max((depths[source] for source in node.all_input_nodes), default=0)
        depths[node] = above + (node in counted)
    return {name: depths[node] for node, name in counted.items()}
