"""The two passes of the one-shot route over a captured graph: survey the readers, then prune and re-fit in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from edgefolio_pruner.oneshot.calibration import collect_moments, folded_weights, write_refit
from edgefolio_pruner.oneshot.graph_run import GraphRun
from edgefolio_pruner.oneshot.readers import Reader, least_channels
from edgefolio_pruner.oneshot.result import ReaderResidual
from edgefolio_pruner.oneshot.rows import by_position
from edgefolio_pruner.refit import Elimination, refit_columns, select_blocks
from edgefolio_pruner.spatial import ChannelGroup

#: Ridge of the selection, relative to the mean diagonal; 1e-7 to 1e-2 select alike.
SELECTION_RIDGE = 1e-4

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class GroupSurvey:
    """Elimination order of a group's channels, and the loss each adds, relative to its reader's output variance."""

    elimination: Elimination
    relative_increases: tuple[float, ...]


def survey_groups(
    graph: fx.Graph,
    state: State,
    chunks: Sequence[torch.Tensor],
    readers: Sequence[Reader],
    *,
    seed: int,
    done: Callable[[str], None],
) -> dict[str, GroupSurvey]:
    """Rank the channels of every group on the original net's activations; in the order of ``readers``."""
    run = GraphRun(graph, state, chunks, hold=[pair for reader in readers for pair in reader.held])
    found: dict[str, GroupSurvey] = {}
    for index, reader in enumerate(readers):
        if reader.group is None:
            continue
        run.advance(reader.end)
        weight = state[reader.weight]
        moments = collect_moments(
            reader,
            original=run,
            pruned=run,
            inputs=torch.arange(weight.shape[1]),
            outputs=torch.arange(weight.shape[0]),
            seed=seed + index,
        ).total()
        elimination = select_blocks(
            moments,
            prior=folded_weights(reader, state),
            blocks=reader.blocks,
            ridge=SELECTION_RIDGE,
            intercept=reader.intercept,
            minimum_kept=least_channels(reader.group.channels),
        )
        scale = max(_variance(reader, run) * moments.rows, torch.finfo(torch.float64).tiny * 1e16)
        found[reader.group.name] = GroupSurvey(
            elimination=elimination,
            relative_increases=tuple(increase / scale for increase in elimination.increases),
        )
        done(reader.layer)
    return found


class PrunedNet:
    """One variant under construction: its weights and its run over the calibration samples."""

    def __init__(
        self,
        graph: fx.Graph,
        state: State,
        chunks: Sequence[torch.Tensor],
        readers: Sequence[Reader],
        *,
        survey: Mapping[str, GroupSurvey],
        dropped: dict[str, int],
    ) -> None:
        self.original_state = state
        self.state = dict(state)
        self.kept: dict[str, tuple[int, ...]] = {}
        self.residuals: list[ReaderResidual] = []
        for reader in readers:
            if reader.group is not None:
                self._drop(reader.group, survey[reader.group.name].elimination, dropped[reader.group.name])
        self.run = GraphRun(graph, self.state, chunks, hold=[pair for reader in readers for pair in reader.held])

    @property
    def error(self) -> float:
        """Relative error at the last reader's end on held-out samples, with all readers pruned and re-fitted."""
        return self.residuals[-1].relative_error

    def _drop(self, group: ChannelGroup, elimination: Elimination, number: int) -> None:
        self.kept[group.name] = elimination.kept(number, group.channels)
        for part in (*group.writers, *group.readers):
            positions = sorted(index for channel in elimination.order[:number] for index in part.indices[channel])
            held = self.state[part.parameter].clone()
            self.state[part.parameter] = held.index_fill_(part.axis, torch.tensor(positions, dtype=torch.long), 0)

    def refit(self, reader: Reader, original: GraphRun, *, seed: int) -> None:
        """Fit one map to the original net's values at its end, then rerun it with the new weights."""
        self.run.advance(reader.end)
        weight = self.state[reader.weight]
        taps = weight[0, 0].numel()
        channels = range(len(reader.blocks)) if reader.group is None else self.kept[reader.group.name]
        columns = reader.blocks[torch.tensor(channels)].reshape(-1).sort().values
        outputs = self._live_outputs(reader)
        moments = collect_moments(
            reader, original=original, pruned=self.run, inputs=columns[::taps] // taps, outputs=outputs, seed=seed
        )
        prior = folded_weights(reader, self.original_state)[columns][:, outputs]
        found = refit_columns(moments, prior=prior, kept=torch.arange(len(columns)), intercept=reader.intercept)
        weights = torch.zeros(weight[0].numel(), len(outputs), dtype=torch.float64)
        weights[columns] = found.weights
        write_refit(reader, self.state, weights=weights, bias=found.bias, outputs=outputs)
        self.residuals.append(
            ReaderResidual(
                layer=reader.layer,
                relative_error=found.relative_error,
                ridge=found.ridge,
                rows=found.rows,
                method=found.method,
            )
        )
        self.run.rerun(reader.chain)

    def _live_outputs(self, reader: Reader) -> torch.Tensor:
        """The outputs that this variant keeps: those whose filter was not zeroed with another group."""
        before = self.original_state[reader.weight].flatten(1).ne(0).any(1)
        after = self.state[reader.weight].flatten(1).ne(0).any(1)
        gone = before & ~after
        if reader.norm is not None and reader.norm.weight is not None:
            gone &= self.state[reader.norm.weight] == 0
        return (~gone).nonzero()[:, 0]


def _variance(reader: Reader, run: GraphRun) -> float:
    """The variance per row of the reader's end over all positions, summed over the outputs."""
    rows, total, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    convolution = reader.geometry is not None
    for end in run.values(reader.end):
        flat = by_position(end, convolution=convolution).flatten(0, 1).double()
        rows += len(flat)
        total = total + flat.sum(0)
        square = square + flat.square().sum(0)
    return float((square / rows - (total / rows).square()).clamp_min(0).sum())
