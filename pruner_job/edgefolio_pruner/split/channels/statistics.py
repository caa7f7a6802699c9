"""What calibration samples say of the layers that read an exchange: their moments, and what each channel is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgefolio_pruner.calibrating.calibration import KeptChannels, collect_moments
from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import LinearMap, linear_maps
from edgefolio_pruner.refit import GRAM_COLUMNS, Moments
from edgefolio_pruner.refit.kept_channels import FULL_SELECTION_COLUMNS
from edgefolio_pruner.refit.moments import MIN_ROWS_PER_COLUMN
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint

__all__ = ["ExchangeStatistics", "ReaderStatistics", "State", "collect_statistics", "survey"]

Integers = NDArray[np.int64]
State = dict[str, torch.Tensor]
#: A column whose variance is a smaller part of its mean square is constant, as in the moments.
_CONSTANT = 1e-10
#: Equal samples differ by less of the largest value, wherever they stand in a batch (float32).
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class ReaderStatistics:
    """One layer that reads an exchange. ``columns[block]`` are the columns of its weight that read a block.

    ``moments`` are those of all its columns, ``prior`` [columns, outputs] its weights with the batch norm folded in,
    zero for columns that never change, and ``variance`` that of a row of its output, the skip included.
    ``row_units[output]`` is the unit of each output. ``varies``: whether samples differ in what the layer reads; the
    places of one image may differ where no two samples do.
    """

    linear: LinearMap
    moments: Moments
    prior: torch.Tensor
    variance: float
    columns: Integers
    row_units: Integers
    varies: bool

    @property
    def live_columns(self) -> int:
        """Columns that change over the samples."""
        return self.moments.live_columns(intercept=True)

    @property
    def is_scarce(self) -> bool:
        """Whether there are too few rows to tell which columns can replace which."""
        return self.moments.rows < MIN_ROWS_PER_COLUMN * self.live_columns

    @property
    def is_exact(self) -> bool:
        """Whether what a drop costs can be told exactly: enough rows, and not too many columns to invert."""
        return not self.is_scarce and self.linear.columns <= FULL_SELECTION_COLUMNS


@dataclass(frozen=True, eq=False)
class ExchangeStatistics:
    """An exchange whose columns can be pruned, and its readers. ``block_bytes`` travel for each block, in float32."""

    point: ExchangePoint
    readers: tuple[ReaderStatistics, ...]
    block_bytes: Integers


@dataclass(frozen=True, eq=False)
class Survey:
    """All exchanges that can be pruned; of the others, by place, why all of their columns are kept.

    ``scarce`` names layers with too few rows for a fit: they get a factor and an offset for each output.
    """

    exchanges: tuple[ExchangeStatistics, ...]
    whole: tuple[str, ...]
    scarce: tuple[str, ...]


def survey(divided: Divided, captured: CapturedModel, chunks: Sequence[torch.Tensor], *, seed: int) -> Survey:
    """Run the samples through the network once, and collect the moments of every layer that reads an exchange."""
    state: State = dict(captured.parameters)
    maps, refused = linear_maps(captured.graph_module.graph, state)
    by_weight = {linear.weight: linear for linear in maps}
    wanted: dict[str, list[tuple[LinearMap, Integers, Integers]]] = {}
    whole: list[str] = []
    for point in divided.points:
        if point.kind == "gather":
            whole.append(f"{point.place}: {point.reason}")
        if point.kind != "send":
            continue
        found = []
        problem = ""
        for node, role in point.readers:
            name = str(role.weight.target)
            linear = by_weight.get(name)
            blocks = None if linear is None else _columns(point, role.columns[0], linear)
            if linear is None:
                problem = refused.get(name, "its weights are computed in the graph")
            elif not linear.intercept:
                problem = f"{linear.layer} takes no new offset"
            elif linear.columns > GRAM_COLUMNS:
                problem = f"{linear.layer} has {linear.columns} columns"
            elif blocks is None:
                problem = "its channels have unequal numbers of places"
            else:
                found.append((linear, blocks, divided.unit[divided.structure.channels[node].ravel()]))
        if problem:
            whole.append(f"{point.place}: {problem}")
        else:
            wanted[point.name] = found
    moments = collect_statistics(captured, state, chunks, [m for found in wanted.values() for m, _, _ in found], seed)
    exchanges = []
    scarce: list[str] = []
    for point in divided.points:
        if point.name not in wanted:
            continue
        readers = []
        for linear, columns, rows in wanted[point.name]:
            total, variance, varies = moments[linear.weight]
            prior = _live(linear.folded(state), total)
            readers.append(ReaderStatistics(linear, total, prior, variance, columns, rows, varies))
        if any(not reader.varies or not reader.variance > 0 or reader.live_columns == 0 for reader in readers):
            whole.append(f"{point.place}: its values never change over the calibration samples")
            continue
        for reader in readers:
            if reader.is_scarce:
                scarce.append(f"{reader.linear.layer}: {reader.moments.rows} rows for {reader.live_columns} columns")
        sizes = np.bincount(point.blocks) * 4 * point.elements
        exchanges.append(ExchangeStatistics(point, tuple(readers), sizes.astype(np.int64)))
    return Survey(tuple(exchanges), tuple(whole), tuple(scarce))


def _live(weights: torch.Tensor, moments: Moments) -> torch.Tensor:
    """The weights without those of columns that never change: the offset takes these over, whoever has them."""
    spread = moments.centred().gram.diagonal()
    constant = spread <= _CONSTANT * moments.gram.diagonal()
    return torch.where(constant[:, None], 0.0, weights)


def _columns(point: ExchangePoint, slots: Integers, linear: LinearMap) -> Integers | None:
    """The columns of each block; None where blocks have different numbers of them."""
    of = point.blocks[slots]
    counts = np.bincount(of, minlength=len(point.block_units))
    if (counts != counts[0]).any() or counts[0] == 0:
        return None
    channels = np.argsort(of, kind="stable").reshape(len(counts), -1)
    columns: Integers = (channels[..., None] * linear.taps + np.arange(linear.taps)).reshape(len(counts), -1)
    return columns


def collect_statistics(
    captured: CapturedModel, state: State, chunks: Sequence[torch.Tensor], maps: Sequence[LinearMap], seed: int
) -> dict[str, tuple[Moments, float, bool]]:
    """Of each map, by its weight: moments, the variance of a row of its end, whether samples differ in its source."""
    graph = captured.graph_module.graph
    run = GraphRun(graph, state, chunks, hold=[pair for linear in maps for pair in linear.held])
    position = {node: index for index, node in enumerate(graph.nodes)}
    found: dict[str, tuple[Moments, float, bool]] = {}
    for index, linear in enumerate(sorted(maps, key=lambda each: position[each.end])):
        run.advance(linear.end)
        kept = KeptChannels.all_of(linear)
        (split,) = collect_moments(linear, original=run, pruned=run, kept=kept, seed=seed + index)
        axis = 1 if linear.geometry is not None else -1
        ends = torch.cat([end.movedim(axis, -1).flatten(0, -2) for end in run.values(linear.end)]).double()
        variance = float(ends.var(0, unbiased=False).sum())
        found[linear.weight] = (split.total(), variance, _differs(run.values(linear.source)))
    return found


def _differs(chunks: Sequence[torch.Tensor]) -> bool:
    """Whether any sample differs from the first by more than rounding, which depends on its place in a batch."""
    first = chunks[0][:1]
    bound = _ROUNDING * max(float(first.abs().max()), float(torch.finfo(first.dtype).tiny))
    return any(float((chunk - first).abs().max()) > bound for chunk in chunks)
