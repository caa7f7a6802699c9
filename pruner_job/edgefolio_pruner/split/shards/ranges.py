"""Ranges of the maps that travel, over calibration samples: what a UInt8 wire is scaled by.

Of an exchange of channels each slot has a range, of an exchange of rows each channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint
from edgefolio_pruner.split.shards.wire import SlotRanges

__all__ = ["measure_ranges", "measure_row_ranges"]


def measure_ranges(divided: Divided, chunks: Sequence[torch.Tensor]) -> dict[str, SlotRanges]:
    """The least and the largest value of each slot of each exchange of channels."""
    lines = {
        point.node.name: _Line(point.name, point.axis if len(point.units) > 1 else None)
        for point in divided.points
        if point.kind != "take"
    }
    return _measured(divided.structure.program.module, lines, chunks, axis=None)


def measure_row_ranges(
    module: fx.GraphModule, points: Iterable[ExchangePoint], chunks: Sequence[torch.Tensor]
) -> dict[str, SlotRanges]:
    """The least and the largest value of each channel of each exchange of rows."""
    return _measured(module, {point.source.name: _Line(point.name, 1) for point in points}, chunks, axis=1)


@dataclass(frozen=True)
class _Line:
    """The exchange whose map a node gives, and the axis along which there is a range each; None: one for all."""

    exchange: str
    axis: int | None


def _measured(
    module: fx.GraphModule, lines: Mapping[str, _Line], chunks: Sequence[torch.Tensor], *, axis: int | None
) -> dict[str, SlotRanges]:
    recorder = _Recorder(module, lines)
    with torch.no_grad():
        for chunk in chunks:
            recorder.run(chunk)
    return {
        name: SlotRanges(low.astype(np.float32), high.astype(np.float32), axis)
        for name, (low, high) in recorder.found.items()
    }


class _Recorder(fx.Interpreter):
    """Runs the network, and keeps the extremes of what is in front of an exchange."""

    def __init__(self, module: fx.GraphModule, lines: Mapping[str, _Line]) -> None:
        super().__init__(module)
        self._lines = lines
        self.found: dict[str, tuple[Any, Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        line = self._lines.get(n.name)
        if line is not None:
            values = result.movedim(line.axis, 0).flatten(1) if line.axis is not None else result.reshape(1, -1)
            low, high = values.amin(1).numpy(), values.amax(1).numpy()
            if line.exchange in self.found:
                before = self.found[line.exchange]
                low, high = np.minimum(low, before[0]), np.maximum(high, before[1])
            self.found[line.exchange] = (low, high)
        return result
