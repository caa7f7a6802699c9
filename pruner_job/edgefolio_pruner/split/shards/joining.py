"""Shards of a division by rows first, then by channels: one worker's band, and behind it its channels."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.split.exchanges.points import ExchangePoint
from edgefolio_pruner.split.shards.wire import Traffic
from edgefolio_pruner.split.shards.writing import RankModule

__all__ = ["JoinedTraffic", "joined_module"]


@dataclass(frozen=True, eq=False)
class JoinedTraffic:
    """The traffic of two parts whose exchanges have different names; ``first`` are those of the part in front."""

    before: Traffic
    behind: Traffic
    first: frozenset[str]

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self.behind.workers

    def owners(self, point: ExchangePoint) -> NDArray[np.int64]:
        """The worker that computes each slot; -1 where all do."""
        return self._of(point).owners(point)

    def has(self, point: ExchangePoint, worker: int) -> NDArray[np.bool_]:
        """Which slots the worker has in front of the exchange."""
        return self._of(point).has(point, worker)

    def keeps(self, point: ExchangePoint, worker: int) -> NDArray[np.bool_]:
        """Which slots the worker has behind the exchange."""
        return self._of(point).keeps(point, worker)

    def _of(self, point: ExchangePoint) -> Traffic:
        return self.before if point.name in self.first else self.behind


def joined_module(before: RankModule, behind: RankModule) -> RankModule:
    """One module of both parts: the only result of ``before`` is the sample of ``behind``."""
    parts: Mapping[str, RankModule] = {"rows": before, "channels": behind}
    root = torch.nn.Module()
    for name, part in parts.items():
        root.add_module(name, part.module)
    graph = fx.Graph()
    value = graph.placeholder("input")
    # All placeholders come before all else.
    given = {
        name: [graph.placeholder(joint.joined) for joint in part.joints if joint.joined is not None]
        for name, part in parts.items()
    }
    own: list[fx.Node] = []
    results: list[fx.Node] = []
    for name, part in parts.items():
        outputs = graph.call_module(name, (value, *given[name]))
        sent = sum(joint.own is not None for joint in part.joints)
        count = len(next(iter(reversed(part.module.graph.nodes))).args[0])
        taken = [graph.call_function(operator.getitem, (outputs, place)) for place in range(count)]
        own += taken[:sent]
        results = taken[sent:]
        value = results[0]
    graph.output((*own, *results))
    module = fx.GraphModule(root, graph).eval()
    return RankModule(module, (*before.joints, *behind.joints), (*before.shapes, *behind.shapes[1:]))
