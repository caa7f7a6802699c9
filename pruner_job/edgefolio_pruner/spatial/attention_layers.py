"""Attention of a captured model as rows and columns of its weights.

A head may be written in other coordinates: queries times a matrix and keys times its inverse transpose give the same
products, values times a matrix and the columns that read them times its inverse the same sums. That holds where linear
layers alone write and read a head; only such attention is listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.movements import is_scaling
from edgefolio_pruner.spatial.graph.program import lower
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.roles import Attention, Constant, Contraction, Exchange, Input, Map, Mixer, Move, Role
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["AttentionLayer", "HeadSlice", "attention_layers"]


@dataclass(frozen=True)
class HeadSlice:
    """``indices[h]`` are the rows of ``weight`` (and entries of ``bias``) that write head h, or its columns."""

    weight: str
    bias: str | None
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class AttentionLayer:
    """One attention: rows of queries, keys and values, and the columns that read its heads.

    ``products`` is the number of (query, key) tokens per sample, and so the multiply-accumulates per pair, and again
    per channel of a value.
    """

    query: HeadSlice
    key: HeadSlice
    value: HeadSlice
    reader: HeadSlice
    products: int

    @property
    def heads(self) -> int:
        """The number of heads."""
        return len(self.query.indices)

    def pair_rows(self) -> frozenset[tuple[str, int]]:
        """Weight and row of all queries."""
        return frozenset((self.query.weight, row) for rows in self.query.indices for row in rows)

    def value_rows(self) -> frozenset[tuple[str, int]]:
        """Weight and row of all values."""
        return frozenset((self.value.weight, row) for rows in self.value.indices for row in rows)


def attention_layers(captured: CapturedModel) -> tuple[AttentionLayer, ...]:
    """All attention whose heads linear layers alone write and read, in order of execution."""
    structure = build_structure(lower(captured))
    known = set(captured.parameters)
    found = [_layer(structure, node, role, known) for node, role in structure.attentions()]
    return tuple(layer for layer in found if layer is not None)


def _layer(structure: Structure, node: fx.Node, role: Attention, known: set[str]) -> AttentionLayer | None:
    shapes = structure.program.shapes
    paths: set[fx.Node] = {node}
    written: list[HeadSlice] = []
    for source in role.sources:
        path = _back_to_layer(structure, source)
        slots = None if path is None else _followed(structure, path)
        if path is None or slots is None or slots.size != shapes[source][-1]:
            return None
        paths.update(path)
        written.append(_slice(structure, path[0], slots.reshape(role.heads, -1)))
    path = _on_to_layer(structure, node)
    slots = None if path is None else _followed(structure, path[:-1])
    if path is None or slots is None or slots.size != shapes[role.value][-1]:
        return None
    paths.update(path)
    # The column that reads each slot of the attention's result.
    order = np.argsort(slots[_contraction(structure, path[-1]).columns.ravel()], kind="stable")
    written.append(_slice(structure, path[-1], order.reshape(role.heads, -1)))
    channels = np.concatenate([structure.channels[source].ravel() for source in role.sources])
    tokens = (shapes[role.query][1], shapes[role.key][1])
    if not all(_is_whole(part, known) for part in written) or max(tokens) >= LARGEST_STATIC_SIZE:
        return None
    if structure.pinned_mask[channels].any() or _others_read(structure, channels, paths):
        return None
    query, key, value, reader = written
    return AttentionLayer(query, key, value, reader, products=tokens[0] * tokens[1])


def _contraction(structure: Structure, node: fx.Node) -> Contraction:
    role = structure.roles[node]
    assert isinstance(role, Contraction)
    return role


def _followed(structure: Structure, path: list[fx.Node]) -> NDArray[np.int64] | None:
    """For each slot of the last node of ``path`` the slot of the first; ``None`` if one stands for several."""
    slots = np.arange(structure.channels[path[0]].size)
    for node in path[1:]:
        role = structure.roles[node]
        if isinstance(role, Move):
            if len(role.index) > 1 or (role.index < 0).any():
                return None
            slots = slots[role.index[0].ravel()]
    return slots if len(set(slots.tolist())) == slots.size else None


def _slice(structure: Structure, node: fx.Node, indices: NDArray[np.int64]) -> HeadSlice:
    role = _contraction(structure, node)
    bias = None if role.bias is None else str(role.bias.target)
    return HeadSlice(str(role.weight.target), bias, tuple(tuple(head) for head in indices.tolist()))


def _is_whole(part: HeadSlice, known: set[str]) -> bool:
    """Whether the weights are those of the model."""
    return part.weight in known and (part.bias is None or part.bias in known)


def _is_layer(structure: Structure, role: Contraction) -> bool:
    """Whether it is a linear layer that is used once."""
    return role.kind == "linear" and sum(other.weight is role.weight for _, other in structure.contractions()) == 1


def _back_to_layer(structure: Structure, node: fx.Node) -> list[fx.Node] | None:
    """The nodes from a linear layer to ``node``, which do nothing but move and scale."""
    path = [node]
    while not isinstance(role := structure.roles.get(path[0]), Contraction):
        if not (isinstance(role, Move) or (isinstance(role, Map) and is_scaling(path[0]))):
            return None
        sources = list(_sources(role))
        if len(sources) != 1:
            return None
        path.insert(0, sources[0])
    return path if _is_layer(structure, role) else None


def _on_to_layer(structure: Structure, node: fx.Node) -> list[fx.Node] | None:
    """The nodes from ``node`` to the linear layer that reads it, which do nothing but move."""
    path = [node]
    while len(path[-1].users) == 1:
        path.append(next(iter(path[-1].users)))
        role = structure.roles.get(path[-1])
        if isinstance(role, Contraction):
            whole = role.columns.size == structure.channels[node].size
            return path if whole and _is_layer(structure, role) else None
        if not isinstance(role, Move):
            return None
    return None


def _others_read(structure: Structure, channels: NDArray[np.int64], paths: set[fx.Node]) -> bool:
    """Whether anything but ``paths`` reads any of ``channels``."""
    mask = np.zeros(structure.count, dtype=bool)
    mask[channels] = True
    for node, role in structure.roles.items():
        if node in paths:
            continue
        read = [node] if isinstance(role, Move) else _sources(role)
        if any(source in structure.channels and mask[structure.channels[source]].any() for source in read):
            return True
    return False


def _sources(role: Role) -> Iterator[fx.Node]:
    if isinstance(role, Move):
        yield from role.sources
    elif isinstance(role, Map):
        yield from (operand.node for operand in role.operands if operand.node.op != "get_attr")
    elif isinstance(role, (Contraction, Mixer, Exchange)):
        yield role.source
    elif isinstance(role, Attention):
        yield from role.sources
    elif not isinstance(role, (Input, Constant)):
        yield from role.inputs
