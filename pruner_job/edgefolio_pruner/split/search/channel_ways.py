"""Options of the exchanges of channels: what a part of their bytes takes, and what the rest takes whatever is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefolio_pruner.split.channels.ownership import contiguous
from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint, Integers, depths_of
from edgefolio_pruner.split.search.keeps import ExchangeOptions, Option
from edgefolio_pruner.split.search.layers import LayerTimes
from edgefolio_pruner.split.search.network import Network

__all__ = ["KEEPS", "ChannelWays", "channel_ways"]

#: Parts of an exchange's bytes that are weighed.
KEEPS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.0)


@dataclass(frozen=True, kw_only=True)
class ChannelWays:
    """A part of a network by channels: what its layers take besides those that read an exchange, and the exchanges."""

    milliseconds: float
    exchanges: tuple[ExchangeOptions, ...]


def channel_ways(
    divided: Divided,
    shares: Sequence[int],
    times: Mapping[str, LayerTimes],
    losses: Mapping[str, Sequence[float]],
    network: Network,
) -> ChannelWays:
    """The exchanges of a divided network; ``losses`` of those that can be pruned, at each of :data:`KEEPS`.

    Raises :class:`~edgefolio.errors.UserError` if a layer has too few units for the shares.
    """
    owner = contiguous(divided, shares)
    points = [point for point in divided.points if point.kind != "take"]
    depths = depths_of(divided, frozenset(point.name for point in points))
    fixed = _fixed(divided, times)
    found = []
    for point in points:
        elements = _elements_into_busiest(point, owner, len(shares))
        readers = [times[name] for name in _readers(point) if name in times]
        # What cannot be pruned is sent whole.
        keeps = zip(KEEPS, losses[point.place], strict=True) if point.place in losses else [(1.0, 0.0)]
        options = tuple(
            Option(
                keep=keep,
                milliseconds=sum(each.by_channels(keep) for each in readers) + network.milliseconds(keep * elements),
                loss=0.0 if keep >= 1 else loss,
            )
            for keep, loss in keeps
        )
        found.append(ExchangeOptions(place=point.place, depth=depths[point.name], options=options))
    return ChannelWays(milliseconds=fixed, exchanges=tuple(found))


def _readers(point: ExchangePoint) -> list[str]:
    return [str(role.weight.target).removesuffix(".weight") for _, role in point.readers]


def _fixed(divided: Divided, times: Mapping[str, LayerTimes]) -> float:
    """Milliseconds of the layers that read no exchange."""
    after = {name for point in divided.points if point.kind == "send" for name in _readers(point)}
    total = 0.0
    for node, role in divided.structure.contractions():
        name = str(role.weight.target).removesuffix(".weight")
        if name in after or name not in times:
            continue
        layer = times[name]
        if node in divided.partial:
            total += layer.part
        elif (divided.unit[divided.structure.channels[node].ravel()] < 0).any():
            # Everybody computes it.
            total += layer.whole
        else:
            total += layer.own if role.groups > 1 else layer.read
    return total


def _elements_into_busiest(point: ExchangePoint, owner: Integers, workers: int) -> int:
    owned = np.where(point.units < 0, -1, owner[point.units])
    return max(point.elements * int(((owned >= 0) & (owned != worker)).sum()) for worker in range(workers))
