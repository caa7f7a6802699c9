"""Ranges of the maps that travel, over calibration samples: what a UInt8 wire is scaled by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint
from edgefolio_pruner.split.shards.wire import SlotRanges

__all__ = ["measure_ranges"]


def measure_ranges(divided: Divided, chunks: Sequence[torch.Tensor]) -> dict[str, SlotRanges]:
    """The least and the largest value of each slot of each exchange."""
    recorder = _Recorder(divided)
    with torch.no_grad():
        for chunk in chunks:
            recorder.run(chunk)
    return {
        name: SlotRanges(low.astype(np.float32), high.astype(np.float32))
        for name, (low, high) in recorder.found.items()
    }


class _Recorder(fx.Interpreter):
    """Runs the network, and keeps the extremes of what is in front of an exchange."""

    def __init__(self, divided: Divided) -> None:
        super().__init__(divided.structure.program.module)
        self._points: dict[str, ExchangePoint] = {
            point.node.name: point for point in divided.points if point.kind != "take"
        }
        self.found: dict[str, tuple[Any, Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        point = self._points.get(n.name)
        if point is not None:
            slots = len(point.units)
            values = result.movedim(point.axis, 0).reshape(slots, -1) if slots > 1 else result.reshape(1, -1)
            low, high = values.amin(1).numpy(), values.amax(1).numpy()
            if point.name in self.found:
                before = self.found[point.name]
                low, high = np.minimum(low, before[0]), np.maximum(high, before[1])
            self.found[point.name] = (low, high)
        return result
