"""Division of a captured network: where workers exchange channels, and which channels go together.

Exchanges are inserted where a convolution or linear layer reads channels that other workers own, and where an operator
without a transfer function needs all of them. The channels are those of the exact compiler's structure, in which sums,
concatenations, depthwise layers and batch norms are resolved.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.program import Program, lower
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.roles import (
    Contraction,
    Exchange,
)
from edgefolio_pruner.spatial.structure import Structure
from edgefolio_pruner.split.exchanges.insertion import insert_exchanges, values_of_all
from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint, Integers, Kind
from edgefolio_pruner.split.exchanges.units import families_of, require_owned, units_of

__all__ = ["divide"]


def divide(captured: CapturedModel) -> Divided:
    """The captured network with exchanges. Raises :class:`~edgefolio.errors.UserError` if nothing can be divided."""
    program = lower(captured)
    plain = build_structure(program)
    kinds, reasons, partial = insert_exchanges(program, plain)
    program = Program(captured, program.module, {**program.shapes, **_shapes_of_new(program)})
    structure = build_structure(program)
    replicated = values_of_all(structure, kinds)
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
    unit = units_of(structure, replicated, set(partial), whole | received)
    require_owned(structure, unit, replicated, set(partial))
    families = families_of(structure, unit, replicated, set(partial))
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
