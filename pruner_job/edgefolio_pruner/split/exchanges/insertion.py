"""Insertion of exchanges where a layer reads channels of other workers, or an operator needs all of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.spatial.graph.nodes import set_value
from edgefolio_pruner.spatial.graph.program import Program
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
from edgefolio_pruner.split.exchanges.points import Kind

__all__ = ["insert_exchanges", "values_of_all"]

_SPREAD = "channels spread by broadcasting"


def _operands(structure: Structure, role: Map | Move | Attention) -> tuple[fx.Node, ...]:
    sources = tuple(operand.node for operand in role.operands) if isinstance(role, Map) else role.sources
    return tuple(
        source
        for source in dict.fromkeys(sources)
        if source in structure.channels and not isinstance(structure.roles.get(source), Constant)
    )


def _is_spread(structure: Structure, node: fx.Node) -> bool:
    return any(structure.pinned.get(int(c)) == _SPREAD for c in np.unique(structure.channels[node]))


def values_of_all(structure: Structure, kinds: dict[fx.Node, Kind]) -> dict[fx.Node, bool]:
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


def insert_exchanges(
    program: Program, structure: Structure
) -> tuple[dict[fx.Node, Kind], dict[fx.Node, str], tuple[fx.Node, ...]]:
    """Insert the exchanges: their kinds and, of those that gather, the reasons; and the last layers."""
    replicated = values_of_all(structure, {})
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
