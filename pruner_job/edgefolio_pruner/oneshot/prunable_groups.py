"""Channel groups that the one-shot route can prune: every map that reads one can be re-fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from edgefolio_pruner.calibrating.linear_maps import LinearMap
from edgefolio_pruner.spatial import AttentionLayer, ChannelGroup, channel_floor

#: Fewest channels that a group keeps, absolute and in percent of what it had.
LEAST_CHANNELS = 4
LEAST_PERCENT = 8


def channel_step(channels: int) -> int:
    """A group of ``channels`` is cut to a multiple of this; why: :func:`~edgefolio_pruner.spatial.channel_floor`."""
    return 8 if channels >= 64 else 4 if channels >= 8 else 1


def least_channels(channels: int) -> int:
    """The number of channels that a group of ``channels`` always keeps."""
    return channel_floor(channels, least=LEAST_CHANNELS, percent=LEAST_PERCENT, block=channel_step(channels))


@dataclass(frozen=True, eq=False)
class GroupRead:
    """One map that reads a group. ``blocks`` [channels, s]: the columns of its flattened weight per channel.

    In a convolution with groups these are the columns of each of them: channels are removed from all alike.
    """

    linear: LinearMap
    blocks: torch.Tensor


@dataclass(frozen=True, eq=False)
class PrunableGroup:
    """A channel group, all maps that read it, and the number of channels that it always keeps.

    An inner group whose map ends in a residual sum may lose all: what is left of the block is its skip. Pairs of
    queries and keys are read by no map, but by ``attention``.
    """

    group: ChannelGroup
    reads: tuple[GroupRead, ...]
    least: int
    attention: AttentionLayer | None = None

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    @property
    def channels(self) -> int:
        """The number of channels before."""
        return self.group.channels


def prunable_groups(
    groups: Sequence[ChannelGroup],
    maps: Sequence[LinearMap],
    refused: Mapping[str, str],
    attention: Sequence[AttentionLayer] = (),
) -> tuple[tuple[PrunableGroup, ...], dict[str, str]]:
    """The groups that can be pruned without training, and the reasons why others are left out."""
    by_weight = {linear.weight: linear for linear in maps}
    pairs = {row: layer for layer in attention if layer.query.weight in by_weight for row in layer.pair_rows()}
    found: list[PrunableGroup] = []
    left_out: dict[str, str] = {}
    for group in groups:
        made = _prunable(group, by_weight, refused, pairs)
        if isinstance(made, PrunableGroup):
            found.append(made)
        else:
            left_out[group.name] = made
    return tuple(found), left_out


def _prunable(
    group: ChannelGroup,
    by_weight: Mapping[str, LinearMap],
    refused: Mapping[str, str],
    pairs: Mapping[tuple[str, int], AttentionLayer],
) -> PrunableGroup | str:
    if not group.prunable:
        return group.reason or "not prunable"
    if group.channels <= least_channels(group.channels):
        return f"it has only {group.channels} channels"
    if not group.readers:
        rows = [(part.parameter, index) for part in group.writers for index in part.indices[0]]
        layer = next((pairs[row] for row in rows if row in pairs), None)
        if layer is None:
            return "queries and keys that other operators than linear layers write or read"
        return PrunableGroup(group=group, reads=(), least=least_channels(group.channels), attention=layer)
    reads: list[GroupRead] = []
    for part in group.readers:
        linear = by_weight.get(part.parameter)
        if linear is None:
            return refused.get(part.parameter, f"its reader {part.parameter} cannot be re-fitted")
        if part.axis != 1:
            return f"{part.parameter} reads it in an unusual way"
        if len({len(positions) for positions in part.indices}) != 1:
            return f"{part.parameter} reads its channels differently often"
        inputs = torch.tensor(part.indices)
        columns = inputs[:, :, None] * linear.taps + torch.arange(linear.taps)
        reads.append(GroupRead(linear, columns.reshape(group.channels, -1)))
    ends_in_sum = len(reads) == 1 and group.kind == "inner" and reads[0].linear.skip is not None
    covers = len(reads) == 1 and reads[0].blocks.numel() == reads[0].linear.columns
    least = 0 if ends_in_sum and covers and reads[0].linear.intercept else least_channels(group.channels)
    return PrunableGroup(group=group, reads=tuple(reads), least=least)
