"""Greedy allocation of cuts: how many channels each group loses for a target of multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from edgefolio_pruner.spatial import ChannelGroup

#: Weight of an error at the last reader relative to one at the first, which later ones correct. No value is best
#: for all nets and targets: one plan is made with each, and their errors at the net's end are compared.
LAST_OVER_FIRST = (1.0, 2.0, 4.0)

_WEIGHTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten.conv_transpose2d.input,
}


@dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates per sample of one use of a weight, and the groups whose channels it holds."""

    macs: int
    groups: tuple[str, ...]


@dataclass(frozen=True)
class MacsModel:
    """Multiply-accumulates of the net as a function of the channels kept per group."""

    layers: tuple[LayerCost, ...]
    channels: dict[str, int]

    def macs(self, kept: dict[str, int]) -> float:
        """Per sample, with ``kept`` channels per group; a layer between two groups shrinks with both."""
        total = 0.0
        for layer in self.layers:
            part = float(layer.macs)
            for group in layer.groups:
                part *= kept[group] / self.channels[group]
            total += part
        return total


def macs_model(graph: fx.Graph, parameters: dict[str, torch.Tensor], groups: tuple[ChannelGroup, ...]) -> MacsModel:
    """Count the convolutions and linear layers of a captured graph (one of static size)."""
    holders: dict[str, list[str]] = {}
    for group in groups:
        for part in (*group.writers, *group.readers):
            names = holders.setdefault(part.parameter, [])
            if group.name not in names:
                names.append(group.name)
    layers: list[LayerCost] = []
    for node in graph.nodes:
        if node.op != "call_function" or not (node.target in _WEIGHTED or node.target is torch.ops.aten.linear.default):
            continue
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        name = str(weight.target)
        shape = tuple(node.meta["val"].shape)
        numbers = [int(size) for size in (shape[2:] if node.target in _WEIGHTED else shape[1:-1])]
        positions = 1
        for size in numbers:
            positions *= size
        layers.append(LayerCost(macs=parameters[name].numel() * positions, groups=tuple(holders.get(name, ()))))
    return MacsModel(layers=tuple(layers), channels={group.name: group.channels for group in groups})


@dataclass(frozen=True)
class GroupLosses:
    """Loss added by each channel of a group, in elimination order, relative to its reader's output variance.

    The number of channels kept is a multiple of ``step``.
    """

    name: str
    increases: tuple[float, ...]
    step: int = 1


def plan_shares(
    groups: Sequence[GroupLosses], *, model: MacsModel, target: float, last_over_first: float
) -> dict[str, int]:
    """Channels to drop per group, so that at most ``target`` multiply-accumulates per sample are left.

    ``groups`` are in the order in which their readers run. Each step is taken by the group where the loss it adds is
    least per multiply-accumulate saved at that point. Losses within a group are made monotone by their running maximum,
    so that an expensive channel is never hidden behind cheap ones; they weigh more towards the end of the net,
    ``last_over_first`` times as much at the last group. Then what the last steps saved beyond the target is given back,
    most expensive first. A target out of reach takes all that the groups can lose.
    """
    last = max(1, len(groups) - 1)
    weight = {group.name: last_over_first ** (index / last) for index, group in enumerate(groups)}
    highest_loss = {group.name: 0.0 for group in groups}
    kept = dict(model.channels)
    while (current := model.macs(kept)) > target:
        offers: list[tuple[float, str, int, float]] = []
        for group in groups:
            number = (kept[group.name] - 1) % group.step + 1
            dropped = model.channels[group.name] - kept[group.name]
            if dropped + number > len(group.increases):
                continue
            part = group.increases[dropped : dropped + number]
            loss = max(highest_loss[group.name], weight[group.name] * sum(part) / number)
            saved = current - model.macs(kept | {group.name: kept[group.name] - number})
            offers.append((loss * number / max(saved, 1e-9), group.name, number, loss))
        if not offers:
            break
        _, name, number, highest_loss[name] = min(offers)
        kept[name] -= number
    while returns := _returns(groups, model=model, kept=kept, target=target, weight=weight):
        _, name, number = max(returns)
        kept[name] += number
    return {group.name: model.channels[group.name] - kept[group.name] for group in groups}


def _returns(
    groups: Sequence[GroupLosses],
    *,
    model: MacsModel,
    kept: dict[str, int],
    target: float,
    weight: dict[str, float],
) -> list[tuple[float, str, int]]:
    """The steps that can be given back within ``target``: the loss each undoes, its group, its channels."""
    found: list[tuple[float, str, int]] = []
    for group in groups:
        dropped = model.channels[group.name] - kept[group.name]
        number = min(group.step, dropped)
        if number and model.macs(kept | {group.name: kept[group.name] + number}) <= target:
            loss = weight[group.name] * sum(group.increases[dropped - number : dropped])
            found.append((loss, group.name, number))
    return found
