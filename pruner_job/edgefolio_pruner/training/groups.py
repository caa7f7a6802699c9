"""Prune whole channel groups: filter, bias, scale and shift of a channel together, so that nothing of it is left.

Single small weights empty hardly any filter, so they make no network smaller. Here the channels of all groups are
ranked together and masked until the level's share of weights is gone. A masked channel is exactly zero everywhere
(zero-invariant, Chen et al. 2021), so that it can be cut out without any change of the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgefolio_pruner.training.masks import Masks, kept_weights, prune_by_magnitude

if TYPE_CHECKING:
    from edgefolio_pruner.spatial import ChannelGroup, ChannelSlice

#: A group keeps at least this many channels, and at least this share of them.
LEAST_CHANNELS = 8
LEAST_SHARE = 0.1

# How strongly saved work counts: score = importance / (saved MACs)^_WORK_EXPONENT.
_WORK_EXPONENT = 0.5


@dataclass(frozen=True)
class _Candidate:
    score: float
    group: int
    channel: int


def prune_by_group(
    masks: Masks,
    parameters: Mapping[str, torch.Tensor],
    prunable: Mapping[str, torch.Tensor],
    groups: Sequence[ChannelGroup],
    *,
    target: int,
) -> Masks:
    """Mask the least important channels until ``target`` prunable weights are kept; ``masks`` is not changed.

    ``parameters`` are all of the module's, by name. Where every group is down to its floor, single weights go by
    magnitude. The result has masks for biases, scales and shifts of masked channels too.
    """
    result = {name: mask.clone() for name, mask in masks.items()}
    kept = kept_weights(result, prunable)
    ranked = [group for group in groups if group.prunable]
    alive = [[_is_alive(group, channel, result, prunable) for channel in range(group.channels)] for group in ranked]
    candidates = [
        _Candidate(score=score, group=number, channel=channel)
        for number, group in enumerate(ranked)
        for channel, score in enumerate(channel_scores(group, parameters, prunable))
        if alive[number][channel]
    ]
    # Ties go in the order of groups and channels, so that the choice is the same each time.
    candidates.sort(key=lambda candidate: (candidate.score, candidate.group, candidate.channel))
    for candidate in candidates:
        if kept <= target:
            break
        group, living = ranked[candidate.group], alive[candidate.group]
        if sum(living) <= least_channels(group.channels):
            continue
        living[candidate.channel] = False
        kept -= _mask_channel(group, candidate.channel, result, parameters, prunable)
    return prune_by_magnitude(result, prunable, target=target)


def with_first_names(groups: Sequence[ChannelGroup], module: nn.Module) -> tuple[ChannelGroup, ...]:
    """``groups`` with each shared parameter under the name that ``module.named_parameters()`` gives it."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    known = {name: first[id(value)] for name, value in module.named_parameters(remove_duplicate=False)}

    def renamed(parts: Sequence[ChannelSlice]) -> tuple[ChannelSlice, ...]:
        return tuple(replace(part, parameter=known.get(part.parameter, part.parameter)) for part in parts)

    return tuple(replace(group, writers=renamed(group.writers), readers=renamed(group.readers)) for group in groups)


def least_channels(channels: int) -> int:
    """How many of ``channels`` a group keeps at least; all, if it has few."""
    return min(channels, max(LEAST_CHANNELS, math.ceil(LEAST_SHARE * channels)))


def channel_scores(
    group: ChannelGroup, parameters: Mapping[str, torch.Tensor], prunable: Mapping[str, torch.Tensor]
) -> list[float]:
    """The importance of each channel of ``group`` per saved work.

    Importance is what a channel carries times how strongly it is read: its scale (batch norm; without one the norm of
    its filter) times the norm of the weights that read it, each relative to the mean of its layer.
    """
    filters = [part for part in group.writers if part.parameter in prunable]
    scales = [part for part in group.writers if part.parameter not in prunable and part.parameter.endswith("weight")]
    carried = _relative_energy(scales or filters, parameters, group.channels)
    readers = [part for part in group.readers if part.parameter in prunable]
    read = _relative_energy(readers, parameters, group.channels)
    work = float(max(group.macs_per_channel, 1)) ** _WORK_EXPONENT
    return [math.sqrt(value) / work for value in (carried * read).tolist()]


def _relative_energy(
    parts: Sequence[ChannelSlice], parameters: Mapping[str, torch.Tensor], channels: int
) -> torch.Tensor:
    """Sum over ``parts`` of each channel's squared norm relative to the mean over the part's living channels."""
    if not parts:
        return torch.ones(channels, dtype=torch.float64)
    total = torch.zeros(channels, dtype=torch.float64)
    for part in parts:
        values = parameters[part.parameter].detach().double().pow(2)
        along = values.movedim(part.axis, 0).reshape(values.shape[part.axis], -1).sum(dim=1)
        energy = torch.stack([along[list(positions)].sum() for positions in part.indices])
        living = int((energy > 0).sum())
        if living:
            total += energy / (energy.sum() / living)
    return total / len(parts)


def _is_alive(group: ChannelGroup, channel: int, masks: Masks, prunable: Mapping[str, torch.Tensor]) -> bool:
    return any(
        bool(masks[part.parameter].index_select(part.axis, _positions(part, channel)).any())
        for part in group.writers
        if part.parameter in prunable
    )


def _mask_channel(
    group: ChannelGroup,
    channel: int,
    masks: Masks,
    parameters: Mapping[str, torch.Tensor],
    prunable: Mapping[str, torch.Tensor],
) -> int:
    """Mask all that writes or reads ``channel``; how many prunable weights that dropped."""
    dropped = 0
    for part in (*group.writers, *(reader for reader in group.readers if reader.parameter in prunable)):
        mask = masks.setdefault(part.parameter, torch.ones(parameters[part.parameter].shape, dtype=torch.bool))
        positions = _positions(part, channel)
        if part.parameter in prunable:
            dropped += int(mask.index_select(part.axis, positions).sum())
        mask.index_fill_(part.axis, positions, False)
    return dropped


def _positions(part: ChannelSlice, channel: int) -> torch.Tensor:
    return torch.tensor(part.indices[channel], dtype=torch.int64)
