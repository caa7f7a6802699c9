"""Pruning of what is sent, by exact second-order loss, with one budget of bytes over all exchanges and workers.

For each exchange and each worker that receives, the blocks of others are ordered by elimination: by the loss of a drop
with all remaining columns re-fitted, as a part of the variance of the layer's output. The orders are made monotone and
merged: at a price per byte, what is worth less than its bytes is dropped, and an exchange as a whole where what it is
still worth is less than its bytes and the price of one synchronisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edgefolio_pruner.refit import SelectionPart, eliminate_jointly, regularised_quadratic, selection_parts
from edgefolio_pruner.split.channels.ownership import Ownership, everything
from edgefolio_pruner.split.channels.statistics import ExchangeStatistics, ReaderStatistics, Survey
from edgefolio_pruner.split.channels.swapping import RIDGE
from edgefolio_pruner.split.exchanges.points import Divided

__all__ = ["Orders", "choose_parts", "choose_sent", "elimination_orders", "lost_at"]

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
#: What a drop may cost, as a part of the variance of a layer's output, to be worth no byte at all.
_WORTHLESS = 1e-10
#: No worker receives more than this times the mean of all.
_MOST_OF_MEAN = 1.1


@dataclass(frozen=True, eq=False)
class _Order:
    """Blocks of one exchange in the order in which one worker gives them up; ``score`` is loss per byte, rising."""

    exchange: int
    worker: int
    blocks: Integers
    losses: Floats
    bytes: Integers
    score: Floats


@dataclass(frozen=True, eq=False)
class Orders:
    """The elimination orders of all exchanges and workers; ``exact`` is false where some rest on one factor a block."""

    survey: Survey
    owner: Integers
    workers: int
    orders: tuple[_Order, ...]
    exact: bool

    @property
    def total_bytes(self) -> int:
        """What travels if nothing is dropped."""
        return int(sum(order.bytes.sum() for order in self.orders))


def elimination_orders(survey: Survey, owner: Integers, workers: int, *, second_order: bool = True) -> Orders:
    """Order the blocks that each worker does not own; one inverse of each layer's moments serves all workers.

    Without ``second_order`` by the size of their weights, which is what that is compared with.
    """
    orders: list[_Order] = []
    exact = True
    for number, exchange in enumerate(survey.exchanges):
        parts = [_part(reader) if second_order else None for reader in exchange.readers]
        owners = owner[exchange.point.block_units]
        for worker in range(workers):
            if not second_order:
                orders.append(_by_magnitude(number, exchange, owner, worker))
                continue
            candidates = torch.from_numpy(owners != worker)
            mine = [
                _rows(reader, part, owner[reader.row_units] == worker)
                for reader, part in zip(exchange.readers, parts, strict=True)
                if (owner[reader.row_units] == worker).any()
            ]
            if not mine or not bool(candidates.any()):
                continue
            found = eliminate_jointly(
                mine, prices=torch.from_numpy(exchange.block_bytes), candidates=candidates, minimum_kept=0
            )
            exact = exact and found.exact
            blocks = np.array(found.order, dtype=np.int64)
            losses = np.array(found.increases, dtype=np.float64)
            size = exchange.block_bytes[blocks]
            orders.append(_Order(number, worker, blocks, losses, size, np.maximum.accumulate(losses / size)))
    return Orders(survey, owner, workers, tuple(orders), exact)


def _by_magnitude(number: int, exchange: ExchangeStatistics, owner: Integers, worker: int) -> _Order:
    blocks = np.flatnonzero(owner[exchange.point.block_units] != worker)
    squares = np.zeros(len(exchange.block_bytes))
    for reader in exchange.readers:
        mine = reader.prior.numpy()[:, owner[reader.row_units] == worker] ** 2
        squares += mine.sum(1)[reader.columns].sum(1) / (reader.prior.numpy() ** 2).sum()
    blocks = blocks[np.argsort(squares[blocks] / exchange.block_bytes[blocks], kind="stable")].astype(np.int64)
    losses, size = squares[blocks], exchange.block_bytes[blocks]
    return _Order(number, worker, blocks, losses, size, np.maximum.accumulate(losses / size))


def _part(reader: ReaderStatistics) -> SelectionPart | None:
    """The layer's part with all of its outputs; None if it is too wide to invert, or has too few rows."""
    if not reader.is_exact:
        return None
    form = regularised_quadratic(reader.moments, prior=reader.prior, ridge=RIDGE, intercept=True)
    scale = torch.full((reader.prior.shape[1],), _unit(reader), dtype=torch.float64)
    return SelectionPart.of(form, blocks=torch.from_numpy(reader.columns), output_losses=scale)


def _unit(reader: ReaderStatistics) -> float:
    return 1 / (reader.variance * max(1, reader.moments.rows))


def _rows(reader: ReaderStatistics, part: SelectionPart | None, rows: Mask) -> SelectionPart:
    """The part of some outputs of a layer."""
    index = torch.from_numpy(np.flatnonzero(rows))
    if part is not None:
        return replace(part, weights=part.weights[:, index])
    (found,) = selection_parts(
        reader.moments.outputs(index),
        prior=reader.prior[:, index],
        blocks=torch.from_numpy(reader.columns),
        ridge=RIDGE,
        intercept=True,
        output_losses=[torch.full((len(index),), _unit(reader), dtype=torch.float64)],
    )
    return found


def choose_sent(divided: Divided, orders: Orders, *, budget: int, exchange_bytes: int) -> Ownership:
    """What is sent within ``budget`` bytes a sample; one synchronisation costs as much as ``exchange_bytes``."""
    scores = np.unique(np.concatenate([[0.0], *[order.score for order in orders.orders]]))
    low, high = 0, len(scores)
    # The least price at which the budget is met: bytes fall as the price rises.
    while low < high:
        middle = (low + high) // 2
        if _bytes(orders, _dropped(orders, float(scores[middle]), exchange_bytes)) <= budget:
            high = middle
        else:
            low = middle + 1
    dropped = _dropped(orders, float(scores[min(low, len(scores) - 1)]), exchange_bytes)
    if low == len(scores):
        dropped = [len(order.blocks) for order in orders.orders]
    if budget < orders.total_bytes:
        dropped = _refilled(orders, dropped, budget)
        dropped = _balanced(orders, dropped)
    return _ownership(divided, orders, dropped)


def choose_parts(divided: Divided, orders: Orders, keeps: Mapping[str, float]) -> Ownership:
    """What is sent if each exchange, by the layer that reads it, may send its part of its bytes."""
    exchanges = orders.survey.exchanges
    dropped = [_kept_to(order, keeps.get(exchanges[order.exchange].point.place, 0.0)) for order in orders.orders]
    return _ownership(divided, orders, dropped)


def lost_at(orders: Orders, exchange: int, keep: float) -> float:
    """What all workers lose at an exchange that sends this part of its bytes, as parts of its readers' variances."""
    mine = [order for order in orders.orders if order.exchange == exchange]
    return float(sum(order.losses[: _kept_to(order, keep)].sum() for order in mine))


def _kept_to(order: _Order, keep: float) -> int:
    """How many blocks go, so that at most this part of the bytes stays; what is worth nothing goes anyway."""
    if keep >= 1:
        return _worthless(order)
    left = order.bytes.sum() - np.concatenate([[0], np.cumsum(order.bytes)])
    fitting = np.flatnonzero(left <= keep * order.bytes.sum())
    return max(_worthless(order), int(fitting[0]))


def _ownership(divided: Divided, orders: Orders, dropped: Sequence[int]) -> Ownership:
    received = everything(divided, orders.workers)
    for order, count in zip(orders.orders, dropped, strict=True):
        received[orders.survey.exchanges[order.exchange].point.name][order.worker, order.blocks[:count]] = False
    return Ownership(orders.workers, orders.owner, received)


def _dropped(orders: Orders, price: float, exchange_bytes: int) -> list[int]:
    """How many blocks of each order are worth less than their bytes at this price."""
    dropped = [
        max(_worthless(order), int(np.searchsorted(order.score, price, side="right")) if price > 0 else 0)
        for order in orders.orders
    ]
    for number in range(len(orders.survey.exchanges)):
        mine = [place for place, order in enumerate(orders.orders) if order.exchange == number]
        worth = sum(float(orders.orders[place].losses[dropped[place] :].sum()) for place in mine)
        size = sum(int(orders.orders[place].bytes[dropped[place] :].sum()) for place in mine)
        if price > 0 and worth < price * (size + exchange_bytes):
            for place in mine:
                dropped[place] = len(orders.orders[place].blocks)
    return dropped


def _worthless(order: _Order) -> int:
    """How many blocks, the first of the order, change nothing."""
    return int(np.searchsorted(np.maximum.accumulate(order.losses), _WORTHLESS, side="right"))


def _bytes(orders: Orders, dropped: Sequence[int]) -> int:
    return sum(int(order.bytes[count:].sum()) for order, count in zip(orders.orders, dropped, strict=True))


def _refilled(orders: Orders, dropped: list[int], budget: int) -> list[int]:
    """Take back what is worth most, in exchanges that are used anyway, while the budget allows it."""
    dropped = list(dropped)
    used = {order.exchange for order, count in zip(orders.orders, dropped, strict=True) if count < len(order.blocks)}
    left = budget - _bytes(orders, dropped)
    while True:
        places = [
            place
            for place, order in enumerate(orders.orders)
            if dropped[place] > _worthless(order) and order.exchange in used and order.bytes[dropped[place] - 1] <= left
        ]
        if not places:
            return dropped
        best = max(places, key=lambda place: (float(orders.orders[place].score[dropped[place] - 1]), -place))
        dropped[best] -= 1
        left -= int(orders.orders[best].bytes[dropped[best]])


def _balanced(orders: Orders, dropped: list[int]) -> list[int]:
    """No worker receives much more than the mean of all; what it gives up is what is worth least to it.

    A block cannot be divided: a worker may be above the bound by less than its largest one.
    """
    dropped = list(dropped)
    while True:
        into = np.zeros(orders.workers)
        for order, count in zip(orders.orders, dropped, strict=True):
            into[order.worker] += order.bytes[count:].sum()
        worker = int(np.argmax(into))
        places = [
            place
            for place, order in enumerate(orders.orders)
            if order.worker == worker and dropped[place] < len(order.blocks)
        ]
        largest = max((int(orders.orders[place].bytes[dropped[place] :].max()) for place in places), default=0)
        if not places or into[worker] <= max(_MOST_OF_MEAN * into.mean(), into.mean() + largest):
            return dropped
        best = min(places, key=lambda place: (float(orders.orders[place].score[dropped[place]]), place))
        dropped[best] += 1
