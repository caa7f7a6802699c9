"""Channel groups that a pruner may zero, with their writers and readers.

A channel may be removed exactly once all its writers are zero. Groups are found on the same structure that the exact
compiler works on, so what a pruner zeroes by these groups the compiler removes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph.program import lower
from edgefolio_pruner.spatial.passes.constant_propagation import ChannelConstants, Constancy, propagate_constants
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.spatial.roles import Contraction, Map
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["ChannelGroup", "ChannelSlice", "channel_floor", "channel_groups"]


@dataclass(frozen=True)
class ChannelSlice:
    """``indices[c]`` are the positions on ``axis`` of ``parameter`` (a state_dict name) that belong to channel c."""

    parameter: str
    axis: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels with the same writers and readers.

    ``name`` is that of the first writer (``layer1.0.conv1``; a number is added where one writer has several groups).
    Zeroing all of ``writers`` for one channel makes that channel exactly zero everywhere it is read. ``readers`` are
    the columns (axis 1; axis 0 of transposed convolutions) that read it; pairs of queries and keys, one of each head,
    have none: their attention reads them. ``prunable`` says whether the compiler would then remove it, ``reason`` why
    not. An ``inner`` group has one layer that writes and one that reads it, beside depthwise convolutions and batch
    norms, or is read by an attention alone; any other is a ``stream``. ``macs_per_channel`` is the work per sample, to
    first order, that goes with one channel.
    """

    name: str
    channels: int
    writers: tuple[ChannelSlice, ...]
    readers: tuple[ChannelSlice, ...]
    prunable: bool
    reason: str
    kind: Literal["inner", "stream"]
    macs_per_channel: int


@dataclass
class _Incidence:
    """Which positions of which parameter belong to which channel, and the work they stand for."""

    parameter: str
    axis: int
    writes: bool
    full: bool
    macs: float
    channels: Any
    positions: Any


def channel_groups(captured: CapturedModel) -> tuple[ChannelGroup, ...]:
    """The groups of a captured model in the order of their first writers."""
    structure = build_structure(lower(captured))
    bundle = _bundles(structure)
    incidences = _incidences(structure)
    not_zero = _not_zeroed(structure)
    pinned: dict[int, str] = {}
    for channel, reason in structure.pinned.items():
        pinned.setdefault(int(bundle[channel]), reason)
    for channel in np.flatnonzero(not_zero).tolist():
        pinned.setdefault(int(bundle[channel]), "not zero when everything that writes it is zero")
    known = set(captured.parameters)
    in_pairs = {int(bundle[channel]) for channel in _pair_channels(structure)}
    touched: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, incidence in enumerate(incidences):
        channels = bundle[incidence.channels]
        for channel, position in zip(channels.tolist(), incidence.positions.tolist(), strict=True):
            touched[channel][number].append(position)
    members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for channel in sorted(touched, key=lambda c: _order(touched[c])):
        holdings = touched[channel]
        if not any(incidences[number].writes for number in holdings):
            continue
        reason = pinned.get(channel, "")
        if any(incidences[number].parameter not in known for number in holdings):
            reason = reason or "weights computed in the graph"
        if channel not in in_pairs and not any(not incidences[number].writes for number in holdings):
            reason = reason or "read by no layer"
        members[(tuple(sorted(holdings)), reason)].append(channel)
    groups: list[ChannelGroup] = []
    names: dict[str, int] = defaultdict(int)
    for (numbers, reason), channels in members.items():
        groups.append(_group(incidences, numbers, reason, [touched[channel] for channel in channels], names))
    return tuple(groups)


def _order(holdings: dict[int, list[int]]) -> tuple[int, int]:
    first = min(holdings)
    return first, holdings[first][0]


def _group(
    incidences: list[_Incidence],
    numbers: tuple[int, ...],
    reason: str,
    holdings: list[dict[int, list[int]]],
    names: dict[str, int],
) -> ChannelGroup:
    slices: dict[bool, list[ChannelSlice]] = {True: [], False: []}
    modules: dict[bool, set[str]] = {True: set(), False: set()}
    seen: set[tuple[str, int, bool]] = set()
    macs = 0.0
    for number in numbers:
        incidence = incidences[number]
        macs += incidence.macs * len(holdings[0][number])
        key = (incidence.parameter, incidence.axis, incidence.writes)
        if key in seen:
            continue
        seen.add(key)
        indices = tuple(tuple(sorted(set(held[number]))) for held in holdings)
        slices[incidence.writes].append(ChannelSlice(incidence.parameter, incidence.axis, indices))
        if incidence.full:
            modules[incidence.writes].add(incidence.parameter)
    name = slices[True][0].parameter.rpartition(".")[0] or slices[True][0].parameter
    names[name] += 1
    if names[name] > 1:
        name = f"{name}#{names[name]}"
    inner = not modules[False] or (len(modules[True]) == 1 and len(modules[False]) == 1)
    return ChannelGroup(
        name=name,
        channels=len(holdings),
        writers=tuple(slices[True]),
        readers=tuple(slices[False]),
        prunable=not reason,
        reason=reason,
        kind="inner" if inner else "stream",
        macs_per_channel=round(macs),
    )


def _bundles(structure: Structure) -> Any:
    """Channels of grouped convolutions go together, one of each group, since groups stay equally large; so do heads."""
    first, second = [], []

    def join(channels: Any) -> None:
        first.append(np.broadcast_to(channels[:1], channels.shape).ravel())
        second.append(channels.ravel())

    for _, attention in structure.attentions():
        for source in attention.sources:
            join(attention.by_head(structure.channels[source], structure.program.shapes[source][-1]))
    for node, role in structure.contractions():
        if role.groups > 1 and not role.is_depthwise:
            read = structure.channels[role.source].ravel()[role.columns]
            written = structure.channels[node].reshape(role.groups, role.outputs_per_group)
            join(read)
            join(written)
    if not first:
        return np.arange(structure.count)
    pairs = (np.concatenate(first), np.concatenate(second))
    graph = coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(structure.count,) * 2)
    return connected_components(graph, directed=False)[1]


def _incidences(structure: Structure) -> list[_Incidence]:
    incidences: list[_Incidence] = []
    for node, role in structure.roles.items():
        if isinstance(role, Contraction):
            incidences += _of_contraction(structure, node, role)
        elif isinstance(role, Map) and operator_name(node) == "batch_norm":
            channels = structure.channels[node]
            if channels.size != channels.shape[1]:
                continue
            size = structure.program.shapes[node][1]
            along = np.broadcast_to(channels.ravel(), (size,))
            for name in ("weight", "bias"):
                held = argument(node, name)
                if isinstance(held, fx.Node):
                    incidences.append(_Incidence(str(held.target), 0, True, False, 0.0, along, np.arange(size)))
    return incidences


def _of_contraction(structure: Structure, node: fx.Node, role: Contraction) -> list[_Incidence]:
    weight = str(role.weight.target)
    rows = structure.channels[node].ravel()
    read = structure.channels[role.source].ravel()[role.columns]
    taps = len(role.exposed)
    transposed = role.kind == "conv_transpose"
    full = not role.is_depthwise
    row_macs = role.macs_per_weight * taps * role.inputs_per_group
    column_macs = role.macs_per_weight * taps * role.outputs_per_group
    result = []
    if transposed and role.groups > 1:
        # A row of a grouped transposed convolution is a block of its weight, not positions on one axis.
        structure.pinned.update({int(c): "grouped transposed convolution" for c in (*rows, *read.ravel())})
    positions = np.arange(len(rows))
    result.append(_Incidence(weight, 1 if transposed else 0, True, full, row_macs, rows, positions))
    if role.bias is not None:
        result.append(_Incidence(str(role.bias.target), 0, True, False, 0.0, rows, positions))
    if full:
        columns = read.ravel() if transposed else read
        # Column positions are counted within the group.
        places = np.arange(columns.size) if transposed else np.arange(read.size) % role.inputs_per_group
        result.append(_Incidence(weight, 0 if transposed else 1, False, True, column_macs, columns.ravel(), places))
    return result


def _not_zeroed(structure: Structure) -> Any:
    """Channels that some layer reads as non-zero although all their writers are zero."""
    constants: ChannelConstants = propagate_constants(structure, Matrices(structure.program), writers_zeroed=True)
    result = np.zeros(structure.count, dtype=bool)
    for _, role in structure.contractions():
        if not role.is_depthwise:
            codes = constants.codes[role.source].ravel()[role.columns]
            channels = structure.channels[role.source].ravel()[role.columns]
            result[channels[codes != Constancy.ZERO]] = True
    for _, attention in structure.attentions():
        size = structure.program.shapes[attention.query][-1]
        parts = (attention.query, attention.key)
        # One zero factor makes a product zero.
        zero = [attention.by_head(constants.codes[part], size) == Constancy.ZERO for part in parts]
        result[attention.by_head(structure.channels[attention.query], size)[~(zero[0] | zero[1])]] = True
    return result


def _pair_channels(structure: Structure) -> set[int]:
    """Channels of queries and keys."""
    return {
        channel
        for _, attention in structure.attentions()
        for channel in structure.channels[attention.query].ravel().tolist()
    }


def channel_floor(channels: int, *, least: int, percent: int, block: int = 1) -> int:
    """The number of channels that a group of ``channels`` always keeps: ``least``, ``percent`` of them, whole blocks.

    Runtimes compute convolutions in blocks of 8 or 16 channels; other counts are padded, or fall off the fast path:
    onnxruntime takes longer for 25 channels than for 32, and for 121 than for 128 (measured, AVX-512).
    """
    wanted = max(least, -(-channels * percent // 100))
    return min(channels, -(-wanted // block) * block)
