"""Greedy allocation of cuts: how many channels each group loses for a target of the net's cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgefolio_pruner.oneshot.costs.macs import CostModel


@dataclass(frozen=True)
class GroupLosses:
    """Loss added by each channel of a group, in elimination order.

    The number of channels kept is a multiple of ``step``. ``increases`` ends where the group may lose no more.
    """

    name: str
    increases: tuple[float, ...]
    step: int = 1


def plan_shares(groups: Sequence[GroupLosses], *, model: CostModel, target: float) -> dict[str, int]:
    """Channels to drop per group, so that the cost left is at most ``target``.

    Each turn goes to the group and the number of steps where the added loss is least per cost saved at that point:
    several steps at once pass a plateau of the cost, and a loss that comes late counts with what led to it. Then what
    the last turns saved beyond the target is given back, most expensive first. A target out of reach takes all that the
    groups can lose.
    """
    kept = dict(model.channels)
    current = model.cost(kept)
    while current > target:
        offers = [offer for group in groups if (offer := _offer(group, model, kept, current - target))]
        if not offers:
            break
        _, name, number = min(offers)
        current -= model.saved(kept, name, number)
        kept[name] -= number
    while returns := _returns(groups, model=model, kept=kept, room=target - model.cost(kept)):
        _, name, number = max(returns)
        kept[name] += number
    return {group.name: model.channels[group.name] - kept[group.name] for group in groups}


def _offer(
    group: GroupLosses, model: CostModel, kept: Mapping[str, int], wanted: float
) -> tuple[float, str, int] | None:
    """The group's best next cut: loss per cost saved, name, channels; None if nothing that it may lose saves any."""
    dropped = model.channels[group.name] - kept[group.name]
    best: tuple[float, str, int] | None = None
    number = (kept[group.name] - 1) % group.step + 1
    loss, counted = 0.0, dropped
    while dropped + number <= len(group.increases):
        loss += sum(group.increases[counted : dropped + number])
        counted = dropped + number
        saved = model.saved(kept, group.name, number)
        if saved > 0:
            ratio = loss / min(saved, max(wanted, 1e-12 * saved))
            if best is None or ratio < best[0]:
                best = (ratio, group.name, number)
            if saved >= wanted:
                break
        number += group.step
    return best


def _returns(
    groups: Sequence[GroupLosses], *, model: CostModel, kept: Mapping[str, int], room: float
) -> list[tuple[float, str, int]]:
    """The steps that can be given back within ``room``: the loss each undoes, its group, its channels."""
    found: list[tuple[float, str, int]] = []
    for group in groups:
        dropped = model.channels[group.name] - kept[group.name]
        number = min(group.step, dropped)
        if number and -model.saved(kept, group.name, -number) <= room:
            found.append((sum(group.increases[dropped - number : dropped]), group.name, number))
    return found
