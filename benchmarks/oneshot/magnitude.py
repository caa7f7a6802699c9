"""The baseline: the filters of least magnitude go, and nothing that reads them is re-fitted."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgefolio_pruner.spatial import ChannelGroup


def magnitude_pruned(
    state: Mapping[str, torch.Tensor], groups: tuple[ChannelGroup, ...], kept: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """``state`` with ``kept`` channels per named group: those whose convolution filters have the largest L2 norm.

    A channel that goes loses its filter, its batch norm's scale and shift, and the columns that read it.
    """
    pruned = dict(state)
    for group in groups:
        if group.name not in kept:
            continue
        filters = next(part for part in group.writers if part.axis == 0 and state[part.parameter].ndim == 4)
        weight = state[filters.parameter]
        norms = torch.stack([weight[list(positions)].norm() for positions in filters.indices])
        order = sorted(range(group.channels), key=lambda channel: (float(norms[channel]), channel))
        gone = order[: group.channels - kept[group.name]]
        for part in (*group.writers, *group.readers):
            positions = torch.tensor([index for channel in gone for index in part.indices[channel]], dtype=torch.long)
            pruned[part.parameter] = pruned[part.parameter].index_fill(part.axis, positions, 0)
    return pruned
