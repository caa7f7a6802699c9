"""Owners: the worker that computes each channel, and which channels each worker holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.roles import Contraction
from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint, Family

__all__ = ["Ownership", "capacities", "contiguous", "everything", "line_of", "masked", "reads_of"]

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ownership:
    """``owner[unit]`` is the worker of each unit; ``received[exchange][worker, block]`` what is sent to each worker.

    Of an exchange that gathers, everything is sent, whatever ``received`` says.
    """

    workers: int
    owner: Integers
    received: dict[str, Mask]

    def owners(self, point: ExchangePoint) -> Integers:
        """The worker that computes each slot; -1 where all do."""
        return np.where(point.units < 0, -1, self.owner[point.units])

    def has(self, point: ExchangePoint, worker: int) -> Mask:
        """Which slots the worker has in front of the exchange."""
        found: Mask = (point.units < 0) | (self.owner[point.units] == worker)
        return found

    def keeps(self, point: ExchangePoint, worker: int) -> Mask:
        """Which slots the worker has behind the exchange."""
        has = self.has(point, worker)
        if point.kind == "take":
            return has
        if point.kind == "gather":
            return np.ones_like(has)
        found: Mask = has | self.received[point.name][worker][point.blocks]
        return found

    def bytes_in(self, divided: Divided, *, element_bytes: int = 4) -> dict[str, tuple[int, ...]]:
        """Bytes of each exchange into each worker, a sample."""
        return {
            point.name: tuple(
                element_bytes
                * point.elements
                * int((self.keeps(point, worker) & ~self.has(point, worker)).sum())
                * (point.kind != "take")
                for worker in range(self.workers)
            )
            for point in divided.points
        }

    def channels(self, divided: Divided, worker: int) -> Mask:
        """Which channels of the divided structure the worker holds."""
        keep: Mask = (divided.unit < 0) | (self.owner[divided.unit] == worker)
        for point in divided.points:
            if point.kind == "send":
                # All numbers behind an exchange are those of no unit: what is not received is not there.
                keep[divided.structure.channels[point.node].ravel()] = False
        for point in divided.points:
            if point.kind == "send":
                line = line_of(divided, point)
                keep[line[self.keeps(point, worker)]] = True
        return keep


def line_of(divided: Divided, point: ExchangePoint) -> Integers:
    """The channel of each slot behind an exchange."""
    channels = divided.structure.channels[point.node]
    line: Integers = channels.reshape(-1, channels.shape[point.axis])[0] if channels.size > 1 else channels.ravel()
    return line


def capacities(family: Family, shares: Sequence[int], *, field: str) -> tuple[int, ...]:
    """How many units of a family each worker owns: in proportion to its share, by largest remainder, at least one.

    Raises :class:`~edgefolio.errors.UserError` if that leaves a worker without a unit.
    """
    units = len(family.units)
    if units < len(shares):
        raise UserError(
            f"layer {family.name} has only {units} units that can be owned apart.",
            field=field,
            value=len(shares),
            remedy=f"Give at most {units} workers." if units > 1 else "Serve it on one node.",
        )
    exact = [units * share / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    for rank in sorted(range(len(shares)), key=lambda rank: (counts[rank] - exact[rank], rank))[: units - sum(counts)]:
        counts[rank] += 1
    if not all(counts):
        raise UserError(
            f"a share of {min(shares)} % of the {units} units of layer {family.name} leaves a worker without one.",
            field=field.replace("workers", "shares"),
            value=list(shares),
            remedy="Give shares that are nearer to each other, or fewer workers.",
        )
    return tuple(counts)


def contiguous(divided: Divided, shares: Sequence[int], *, field: str = "--workers") -> Integers:
    """Owners by position: the first units of every family to the first worker."""
    owner = np.zeros(divided.units, dtype=np.int64)
    for family in divided.families:
        owner[family.units] = np.repeat(np.arange(len(shares)), capacities(family, shares, field=field))
    return owner


def everything(divided: Divided, workers: int) -> dict[str, Mask]:
    """All channels of all exchanges to all workers."""
    return {
        point.name: np.ones((workers, len(point.block_units)), dtype=bool)
        for point in divided.points
        if point.kind == "send"
    }


def reads_of(role: Contraction) -> Integers:
    """The slot of the exchange behind each column (one for each input channel) of a layer that reads it."""
    slots: Integers = role.columns[0]
    return slots


def masked(divided: Divided, ownership: Ownership, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with zeros where a worker lacks the input: the ordinary network that the shards are equal to."""
    result = dict(state)
    for point in divided.points:
        if point.kind != "send":
            continue
        for node, role in point.readers:
            rows = ownership.owner[divided.unit[divided.structure.channels[node].ravel()]]
            name = str(role.weight.target)
            lacks = np.stack([~ownership.keeps(point, w)[reads_of(role)] for w in range(ownership.workers)])
            if lacks.any():
                held = result[name].clone(memory_format=torch.contiguous_format)
                role.as_matrix(held)[0].masked_fill_(torch.from_numpy(lacks[rows])[..., None], 0.0)
                result[name] = held
    return result
