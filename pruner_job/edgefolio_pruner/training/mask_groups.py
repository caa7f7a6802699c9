"""Channel-group pruning: filter, bias, scale and shift of a channel are masked together.

Single small weights empty hardly any filter, so they make no network smaller. Here the channels of all groups are
ranked together and masked until the level's share of weights is gone. A masked channel is exactly zero everywhere
(zero-invariant, Chen et al. 2021), so that it can be cut out without any change of the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgefolio_pruner.spatial import ChannelGroup, ChannelSlice, channel_floor
from edgefolio_pruner.training.masks import Masks, kept_weights, prune_by_magnitude

#: Fewest channels that a group keeps, absolute and in percent of what it had.
LEAST_CHANNELS = 8
LEAST_PERCENT = 10

#: Groups keep a multiple of this many channels; why: :func:`~edgefolio_pruner.spatial.channel_floor`.
BLOCK = 8

# How strongly saved work counts: score = importance / (saved MACs)^_WORK_EXPONENT. With 0 the late layers go first,
# which hold most weights and least work; with 1 the early ones are down to their floor at the first level.
_WORK_EXPONENT = 0.25


@dataclass
class _Living:
    """One group, its living channels from the least important on, and their scores."""

    group: ChannelGroup
    channels: list[int]
    scores: dict[int, float]
    floor: int

    def next_block(self) -> list[int]:
        """The least important channels down to the next multiple of :data:`BLOCK`; none if the floor forbids it."""
        size = len(self.channels) % BLOCK or BLOCK
        return self.channels[:size] if len(self.channels) - size >= self.floor else []

    def block_score(self) -> float:
        """The mean score of the next block."""
        block = self.next_block()
        return sum(self.scores[channel] for channel in block) / len(block)


def prune_by_group(
    masks: Masks,
    parameters: Mapping[str, torch.Tensor],
    prunable: Mapping[str, torch.Tensor],
    groups: Sequence[ChannelGroup],
    *,
    target: int,
) -> Masks:
    """Mask the least important channels, then weights, until ``target`` prunable weights are kept.

    ``masks`` is not changed; ``parameters`` are all of the module's, by name. Channels go in blocks, the block with the
    lowest score of the whole network first. What is too small for a block goes by magnitude of single weights, and so
    does all the rest where every group is down to its floor. The result has masks for biases, scales and shifts of
    masked channels too.
    """
    result = {name: mask.clone() for name, mask in masks.items()}
    kept = kept_weights(result, prunable)
    share = target / sum(weight.numel() for weight in prunable.values())
    candidates = [_living(group, result, parameters, prunable, share) for group in groups if group.prunable]
    while candidates := [candidate for candidate in candidates if candidate.next_block()]:
        # Ties go to the first group, so that the choice is the same each time.
        lowest = min(candidates, key=_Living.block_score)
        block = lowest.next_block()
        masked, dropped = _masked(lowest.group, block, result, parameters, prunable)
        if kept - dropped < target:
            candidates.remove(lowest)
            continue
        result |= masked
        kept -= dropped
        del lowest.channels[: len(block)]
    return prune_by_magnitude(result, prunable, target=target)


def with_first_names(groups: Sequence[ChannelGroup], module: nn.Module) -> tuple[ChannelGroup, ...]:
    """``groups`` with each shared parameter under the name that ``module.named_parameters()`` gives it."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    known = {name: first[id(value)] for name, value in module.named_parameters(remove_duplicate=False)}

    def renamed(parts: Sequence[ChannelSlice]) -> tuple[ChannelSlice, ...]:
        return tuple(replace(part, parameter=known.get(part.parameter, part.parameter)) for part in parts)

    return tuple(replace(group, writers=renamed(group.writers), readers=renamed(group.readers)) for group in groups)


def least_channels(channels: int, *, share: float) -> int:
    """The least of ``channels`` that a group keeps when the network keeps ``share`` of its weights.

    The same share, in whole blocks, so that no layer is emptied long before the others (weights go with the square of
    the width: pruned evenly, a group would keep the root of the share); never less than the floor that holds always.
    """
    even = math.ceil(channels * share / BLOCK) * BLOCK
    return max(channel_floor(channels, least=LEAST_CHANNELS, percent=LEAST_PERCENT), min(channels, even))


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


def _living(
    group: ChannelGroup,
    masks: Masks,
    parameters: Mapping[str, torch.Tensor],
    prunable: Mapping[str, torch.Tensor],
    share: float,
) -> _Living:
    scores = dict(enumerate(channel_scores(group, parameters, prunable)))
    living = [channel for channel in range(group.channels) if _is_alive(group, channel, masks, prunable)]
    return _Living(
        group=group,
        channels=sorted(living, key=lambda channel: (scores[channel], channel)),
        scores=scores,
        floor=least_channels(group.channels, share=share),
    )


def _is_alive(group: ChannelGroup, channel: int, masks: Masks, prunable: Mapping[str, torch.Tensor]) -> bool:
    return any(
        bool(masks[part.parameter].index_select(part.axis, _positions(part, channel)).any())
        for part in group.writers
        if part.parameter in prunable
    )


def _masked(
    group: ChannelGroup,
    channels: Sequence[int],
    masks: Masks,
    parameters: Mapping[str, torch.Tensor],
    prunable: Mapping[str, torch.Tensor],
) -> tuple[Masks, int]:
    """Masks of all writers and readers of ``channels``, with those masked; the number of prunable weights dropped."""
    result: Masks = {}
    dropped = 0
    for part in (*group.writers, *(reader for reader in group.readers if reader.parameter in prunable)):
        name = part.parameter
        if name not in result:
            result[name] = masks[name].clone() if name in masks else torch.ones_like(parameters[name], dtype=torch.bool)
        positions = torch.cat([_positions(part, channel) for channel in channels])
        if name in prunable:
            dropped += int(result[name].index_select(part.axis, positions).sum())
        result[name].index_fill_(part.axis, positions, False)
    return result, dropped


def _positions(part: ChannelSlice, channel: int) -> torch.Tensor:
    return torch.tensor(part.indices[channel], dtype=torch.int64)
