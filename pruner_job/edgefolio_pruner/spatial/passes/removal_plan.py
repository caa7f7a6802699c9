"""Removal plan: the channels to keep, by both passes and shape constraints."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.passes.constant_propagation import ChannelConstants, Constancy, propagate_constants
from edgefolio_pruner.spatial.passes.needs import Merge, Needs, find_needs, reduce_to
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.spatial.roles import Attention, Contraction, Map
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["RemovalPlan", "plan_of", "plan_removal"]

Mask = NDArray[np.bool_]
_ROUNDS = 8


@dataclass
class RemovalPlan:
    """``keep`` (one entry per channel) decides shapes; ``needs`` decides which weights matter within them."""

    structure: Structure
    constants: ChannelConstants
    matrices: Matrices
    needs: Needs
    keep: Mask
    wanted: Mask
    merges: dict[fx.Node, list[Merge]]
    merged: Mask

    def mask(self, node: fx.Node) -> Mask:
        """Which slots of the node's value stay."""
        result: Mask = self.keep[self.structure.channels[node]]
        return result

    def along(self, node: fx.Node, axis: int) -> Mask:
        """Which positions along ``axis`` of the description stay."""
        mask = self.mask(node)
        others = tuple(other for other in range(mask.ndim) if other != axis)
        result: Mask = mask.any(axis=others)
        return result

    def is_absent(self, node: fx.Node) -> bool:
        """Whether nothing of the node's value stays."""
        return node in self.structure.channels and not self.mask(node).any()


def plan_removal(structure: Structure) -> RemovalPlan:
    """Run both passes, merge constants that meet zero padding into one channel, and fix the kept channels."""
    matrices = Matrices(structure.program)
    constants = propagate_constants(structure, matrices)
    merges: dict[fx.Node, list[Merge]] = defaultdict(list)
    merged = np.zeros(structure.count, dtype=bool)
    for _ in range(_ROUNDS):
        found = _find_merges(structure, constants, matrices, merges, merged)
        if not found:
            break
    pairs: dict[fx.Node, Mask] = {}
    while True:
        needs = find_needs(structure, constants, matrices, merges=merges, pairs=pairs)
        wanted = _wanted(structure, needs)
        keep = _settle(structure, wanted | structure.pinned_mask)
        # A pair that stays without being needed adds to the products of its head: it must keep what it was.
        kept = {node: pairs_of(structure, role, keep) for node, role in structure.attentions()}
        if all(not (kept[node] & ~needs.pairs[node]).any() for node in kept if keep[structure.channels[node]].any()):
            break
        pairs = kept
    return RemovalPlan(structure, constants, matrices, needs, keep, wanted, dict(merges), merged)


def plan_of(structure: Structure, keep: Mask, *, matrices: Matrices) -> RemovalPlan:
    """The plan that keeps just these channels, whatever they hold: a part of the network, not an equal of it."""
    constants = ChannelConstants()
    needs = Needs()
    for node, channels in structure.channels.items():
        constants.put(node, np.full(channels.shape, Constancy.LIVE, dtype=np.int8), np.zeros(channels.shape))
        needs.slots[node] = keep[channels]
    for node, role in structure.contractions():
        needs.reads[node] = np.ones(role.columns.shape, dtype=bool)
        needs.soft[node] = np.zeros(role.columns.shape, dtype=bool)
    return RemovalPlan(structure, constants, matrices, needs, keep, keep, {}, np.zeros(structure.count, dtype=bool))


def _wanted(structure: Structure, needs: Needs) -> Mask:
    wanted = np.zeros(structure.count, dtype=bool)
    for node, channels in structure.channels.items():
        wanted[channels[needs.slots[node]]] = True
    return wanted


# --- merging constants ----------------------------------------------------------------------------------------------


def _find_merges(
    structure: Structure,
    constants: ChannelConstants,
    matrices: Matrices,
    merges: dict[fx.Node, list[Merge]],
    merged: Mask,
) -> bool:
    """Add merges of constant channels that only layers with zero padding read; whether any was found."""
    needs = find_needs(structure, constants, matrices, merges=merges)
    if not any(soft.any() for soft in needs.soft.values()):
        return False
    firmly = _wanted(structure, find_needs(structure, constants, matrices, merges=merges, ignore_soft=True))
    free = ~(firmly | structure.pinned_mask | merged)
    uses: dict[str, int] = defaultdict(int)
    for _, role in structure.contractions():
        uses[str(role.weight.target)] += 1
    # For each free channel: where it is read softly, and what its value is wherever it could be read.
    reads: dict[int, dict[tuple[fx.Node, int], tuple[int, float]]] = defaultdict(dict)
    values: dict[int, dict[tuple[fx.Node, int], tuple[int, float]]] = defaultdict(dict)
    for node, role in structure.contractions():
        channels = structure.channels[role.source].ravel()[role.columns]
        candidates = free[channels]
        if not candidates.any():
            continue
        soft = needs.soft[node]
        codes = constants.codes[role.source].ravel()[role.columns]
        value = constants.values[role.source].ravel()[role.columns]
        # Changing a shared weight's columns would have to suit all its call sites.
        blocked = uses[str(role.weight.target)] > 1
        for group, column in np.argwhere(candidates & ((codes == Constancy.CONSTANT) | soft)).tolist():
            channel = int(channels[group, column])
            if (blocked and soft[group, column]) or (node, group) in values[channel]:
                free[channel] = False
                continue
            if not blocked:
                values[channel][node, group] = (column, float(value[group, column]))
            if soft[group, column]:
                reads[channel][node, group] = (column, float(value[group, column]))
    reads = {channel: read for channel, read in reads.items() if free[channel] and read}
    return _choose(reads, values, _fits_free(structure, firmly), merges, merged)


def _fits_free(structure: Structure, firmly: Mask) -> Mask:
    """Channels that could stay without making any grouped layer larger than its fullest group already makes it."""
    result = np.ones(structure.count, dtype=bool)
    for node, role in structure.contractions():
        if role.groups > 1 and not role.is_depthwise:
            read = structure.channels[role.source].ravel()[role.columns]
            written = structure.channels[node].reshape(role.groups, role.outputs_per_group)
            for channels in (read, written):
                counts = firmly[channels].sum(axis=1)
                result[channels[counts == counts.max()].ravel()] = False
    return result


def _choose(
    reads: dict[int, dict[tuple[fx.Node, int], tuple[int, float]]],
    values: dict[int, dict[tuple[fx.Node, int], tuple[int, float]]],
    fits_free: Mask,
    merges: dict[fx.Node, list[Merge]],
    merged: Mask,
) -> bool:
    by_places: dict[frozenset[tuple[fx.Node, int]], list[int]] = defaultdict(list)
    for channel, read in reads.items():
        by_places[frozenset(read)].append(channel)
    remaining = set(reads)
    found = False
    while remaining:
        # The representative needs a value wherever one of its members is read.
        patterns: dict[frozenset[tuple[fx.Node, int]], list[int]] = defaultdict(list)
        for channel in sorted(remaining):
            patterns[frozenset(values[channel])].append(channel)

        covered = {
            places: [c for where, cs in by_places.items() if where <= places for c in cs if c in remaining]
            for places in patterns
        }
        best = max(patterns, key=lambda places: (len(covered[places]), -min(patterns[places])))
        members = covered[best]
        if len(members) < 2:
            break
        needed = frozenset(place for member in members for place in reads[member])
        representative = max(
            (channel for channel in patterns[best]),
            key=lambda channel: (
                bool(fits_free[channel]),
                min(abs(values[channel][place][1]) for place in needed),
                -channel,
            ),
        )
        _merge(representative, [m for m in members if m != representative], reads, values, merges)
        merged[[m for m in members if m != representative]] = True
        remaining -= {representative, *members}
        found = True
    return found


def _merge(
    representative: int,
    members: list[int],
    reads: dict[int, dict[tuple[fx.Node, int], tuple[int, float]]],
    values: dict[int, dict[tuple[fx.Node, int], tuple[int, float]]],
    merges: dict[fx.Node, list[Merge]],
) -> None:
    places: dict[tuple[fx.Node, int], list[int]] = defaultdict(list)
    for member in members:
        for place in reads[member]:
            places[place].append(member)
    for (node, group), present in places.items():
        column, value = values[representative][node, group]
        merge = Merge((group, column), [], [])
        for member in present:
            member_column, member_value = reads[member][node, group]
            merge.members.append((group, member_column))
            merge.ratios.append(member_value / value)
        merges[node].append(merge)


# --- shapes ---------------------------------------------------------------------------------------------------------


def _settle(structure: Structure, keep: Mask) -> Mask:
    """Keep more where shapes demand it: equal groups, operands of kept values."""
    keep = keep.copy()
    while True:
        before = int(keep.sum())
        for node, role in structure.roles.items():
            if isinstance(role, Map):
                _keep_operands(structure, keep, node, role)
            elif isinstance(role, Attention):
                _equalize_heads(structure, keep, role)
            elif isinstance(role, Contraction):
                if role.groups > 1 and not role.is_depthwise:
                    _equalize(structure, keep, node, role)
                if keep[structure.channels[node]].any() and not can_be_constant(structure, node):
                    read = structure.channels[role.source].ravel()
                    if not keep[read].any():
                        keep[read[:1]] = True
        if int(keep.sum()) == before:
            return keep


def can_be_constant(structure: Structure, node: fx.Node) -> bool:
    """Whether a value's shape is known but for the batch, so that a constant can take its place."""
    shape = structure.program.shapes[node]
    batch = structure.program.shapes[next(n for n in structure.program.nodes if n.op == "placeholder")][0]
    return shape[0] == batch and all(size < LARGEST_STATIC_SIZE for size in shape[1:])


def _keep_operands(structure: Structure, keep: Mask, node: fx.Node, role: Map) -> None:
    kept = keep[structure.channels[node]]
    if not kept.any():
        return
    for operand in role.operands:
        if operand.node.op != "get_attr":
            channels = structure.channels[operand.node]
            shape = (1,) * (len(operand.view) - channels.ndim) + channels.shape
            keep[channels[reduce_to(kept, shape).reshape(channels.shape)]] = True


def _equalize(structure: Structure, keep: Mask, node: fx.Node, role: Contraction) -> None:
    """All groups that stay keep equally many inputs and equally many outputs."""
    read = structure.channels[role.source].ravel()[role.columns]
    written = structure.channels[node].reshape(role.groups, role.outputs_per_group)
    alive = keep[read].any(axis=1) | keep[written].any(axis=1)
    if not keep[read].any():
        return
    _fill_up(keep, (read, written), alive)


def _equalize_heads(structure: Structure, keep: Mask, role: Attention) -> None:
    """All heads that stay keep equally many pairs and equally many channels of the value."""
    values = role.by_head(structure.channels[role.value], structure.program.shapes[role.value][-1])
    if not keep[values].any():
        return
    pairs = role.by_head(structure.channels[role.query], structure.program.shapes[role.query][-1])
    _fill_up(keep, (pairs, values), keep[pairs].any(axis=1) | keep[values].any(axis=1))


def _fill_up(keep: Mask, parts: tuple[NDArray[np.int64], ...], alive: Mask) -> None:
    """Keep as many channels in each group that is ``alive`` as in the fullest, at least one."""
    for channels in parts:
        kept = keep[channels]
        count = max(1, int(kept.sum(axis=1).max()))
        for group in np.flatnonzero(alive & (kept.sum(axis=1) < count)).tolist():
            for channel in channels[group].tolist():
                if int(keep[channels[group]].sum()) >= count:
                    break
                keep[channel] = True


def pairs_of(structure: Structure, role: Attention, keep: Mask) -> Mask:
    """The pairs that stay (heads, pairs per head)."""
    kept: Mask = keep[role.by_head(structure.channels[role.query], structure.program.shapes[role.query][-1])]
    return kept
