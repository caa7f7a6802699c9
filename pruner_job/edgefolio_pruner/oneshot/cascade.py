"""The two passes of the one-shot route over a captured graph: survey the channels, then prune and re-fit in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from edgefolio_pruner.available_memory import memory_to_plan_with
from edgefolio_pruner.calibrating.calibration import (
    KeptChannels,
    calibration_rows,
    collect_moments,
    write_refit,
    write_scaled,
)
from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.calibrating.rows import by_position
from edgefolio_pruner.network_inputs import Samples
from edgefolio_pruner.oneshot.attention.pairs import UNITS, Unit, least_first, pair_losses
from edgefolio_pruner.oneshot.prunable_groups import GroupRead, PrunableGroup
from edgefolio_pruner.oneshot.result import ReaderResidual
from edgefolio_pruner.refit import (
    GRAM_BYTES,
    GRAM_COLUMNS,
    ContributionAccumulator,
    Elimination,
    Refit,
    ScaleAccumulator,
    SelectionPart,
    eliminate_jointly,
    refit_columns,
    selection_parts,
)

#: Ridge of the selection, relative to the mean diagonal; 1e-7 to 1e-2 select alike.
SELECTION_RIDGE = 1e-4
#: Widest map that is re-fitted without losing columns; beyond, the cost exceeds the gain.
WIDEST_REPAIR = 2304


@dataclass(frozen=True)
class GroupSurvey:
    """Elimination order of a group's channels, and the loss that each adds."""

    elimination: Elimination

    @property
    def losses(self) -> tuple[float, ...]:
        """In the order of elimination."""
        return self.elimination.increases


def survey_groups(
    graph: fx.Graph,
    state: State,
    chunks: Sequence[Samples],
    maps: Sequence[LinearMap],
    groups: Sequence[PrunableGroup],
    *,
    output_losses: Mapping[str, torch.Tensor],
    seed: int,
    done: Callable[[str], None],
) -> dict[Unit, dict[str, GroupSurvey]]:
    """Rank the channels of every group on the original net's activations, in the order of ``groups``.

    A channel costs what all maps that read it lose once each is re-fitted; a pair of queries and keys what leaving it
    out costs.
    """
    reads: dict[LinearMap, list[tuple[PrunableGroup, GroupRead]]] = {linear: [] for linear in maps}
    for group in groups:
        for read in group.reads:
            reads[read.linear].append((group, read))
    run = GraphRun(graph, state, chunks, hold=[pair for linear in maps if reads[linear] for pair in linear.held])
    left = {group.name: len(group.reads) for group in groups}
    parts: dict[tuple[Unit, str], list[SelectionPart]] = {(unit, name): [] for unit in UNITS for name in left}
    found: dict[Unit, dict[str, GroupSurvey]] = {unit: {} for unit in UNITS}
    pairs = [group for group in groups if group.attention is not None]
    for group, losses in pair_losses(graph, state, chunks, maps, pairs, seed=seed).items():
        for unit in UNITS:
            found[unit][group.name] = GroupSurvey(least_first(losses[unit], least=group.least))
        done(group.name)
    for index, linear in enumerate(maps):
        if not reads[linear]:
            continue
        run.advance(linear.end)
        for unit, group, part in _parts(linear, reads[linear], run, state, output_losses[linear.layer], seed + index):
            parts[unit, group.name].append(part)
        for group, _ in reads[linear]:
            left[group.name] -= 1
            if not left[group.name]:
                for unit in UNITS:
                    elimination = eliminate_jointly(parts.pop((unit, group.name)), minimum_kept=group.least)
                    found[unit][group.name] = GroupSurvey(elimination)
                done(group.name)
    return found


def _parts(
    linear: LinearMap,
    reads: Sequence[tuple[PrunableGroup, GroupRead]],
    run: GraphRun,
    state: State,
    output_losses: torch.Tensor,
    seed: int,
) -> Iterator[tuple[Unit, PrunableGroup, SelectionPart]]:
    """The map's part in the selection of each group that it reads; several for a convolution with groups."""
    everything = KeptChannels.all_of(linear)
    losses = {"output": output_losses, "own": torch.full_like(output_losses, 1 / _variance(linear, run))}
    if _is_wide(linear.columns, groups=linear.groups):
        wide = linear.folded(state, dtype=state[linear.weight].dtype)
        sums = [
            (
                unit,
                group,
                number,
                ContributionAccumulator(wide[:, rows], blocks=read.blocks, output_losses=losses[unit][rows], seed=seed),
            )
            for unit in UNITS
            for group, read in reads
            for number, rows in enumerate(everything.rows(linear))
        ]
        del wide
        for inputs, _, _ in calibration_rows(linear, original=run, pruned=run, kept=everything, seed=seed):
            by_group = inputs.reshape(len(inputs), linear.groups, linear.columns)
            for _, _, number, accumulator in sums:
                accumulator.add(by_group[:, number])
        for unit, group, _, accumulator in sums:
            yield unit, group, accumulator.part(intercept=linear.intercept)
        return
    prior = linear.folded(state)
    # Sums alone: beside their parts, a Gram matrix would be there three times.
    moments = collect_moments(linear, original=run, pruned=run, kept=everything, seed=seed)
    totals = [split.total() for split in moments]
    del moments
    for rows, total in zip(everything.rows(linear), totals, strict=True):
        for group, read in reads:
            found = selection_parts(
                total,
                prior=prior[:, rows],
                blocks=read.blocks,
                ridge=SELECTION_RIDGE,
                intercept=linear.intercept,
                output_losses=[losses[unit][rows] / max(1, total.rows) for unit in UNITS],
            )
            for unit, part in zip(UNITS, found, strict=True):
                yield unit, group, part


def _variance(linear: LinearMap, run: GraphRun) -> float:
    """The variance per row of the map's end over all positions, summed over the outputs; never zero."""
    rows, total, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for end in run.values(linear.end):
        flat = by_position(end, convolution=linear.geometry is not None).flatten(0, 1).double()
        rows += len(flat)
        total = total + flat.sum(0)
        square = square + flat.square().sum(0)
    variance = float((square / rows - (total / rows).square()).clamp_min(0).sum())
    return max(variance, torch.finfo(torch.float64).tiny * 1e16)


class PrunedNet:
    """One variant under construction: its weights and its run over the calibration samples."""

    def __init__(
        self,
        graph: fx.Graph,
        state: State,
        chunks: Sequence[Samples],
        maps: Sequence[LinearMap],
        groups: Sequence[PrunableGroup],
        *,
        survey: Mapping[str, GroupSurvey],
        dropped: Mapping[str, int],
    ) -> None:
        self.original_state = state
        self.state = dict(state)
        self.kept: dict[str, tuple[int, ...]] = {}
        self.residuals: list[ReaderResidual] = []
        self._gone: dict[tuple[str, int], set[int]] = {}
        self._changed = False
        for group in groups:
            self._drop(group, survey[group.name].elimination, dropped[group.name])
        self.run = GraphRun(graph, self.state, chunks, hold=[pair for linear in maps for pair in linear.held])

    @property
    def error(self) -> float:
        """Relative error at the last map's end on held-out samples, with everything pruned and re-fitted."""
        return self.residuals[-1].relative_error if self.residuals else 0.0

    def _drop(self, prunable: PrunableGroup, elimination: Elimination, number: int) -> None:
        group = prunable.group
        self.kept[group.name] = elimination.kept(number, group.channels)
        for part in (*group.writers, *group.readers):
            positions = sorted({index for channel in elimination.order[:number] for index in part.indices[channel]})
            self._gone.setdefault((part.parameter, part.axis), set()).update(positions)
            held = self.state[part.parameter].clone()
            self.state[part.parameter] = held.index_fill_(part.axis, torch.tensor(positions, dtype=torch.long), 0)

    def kept_channels(self, linear: LinearMap) -> KeptChannels:
        """The input channels, groups and outputs that a map keeps."""
        gone_inputs = self._gone.get((linear.weight, 1), set())
        inputs = [index for index in range(linear.inputs) if index not in gone_inputs]
        gone_rows = torch.zeros(linear.groups * linear.outputs, dtype=torch.bool)
        gone_rows[sorted(self._gone.get((linear.weight, 0), set()))] = True
        rows = ~gone_rows.reshape(linear.groups, linear.outputs)
        groups = rows.any(1).nonzero()[:, 0]
        outputs = rows[groups[0]].nonzero()[:, 0] if len(groups) else groups
        return KeptChannels(torch.tensor(inputs, dtype=torch.long), groups, outputs)

    def refit(self, linear: LinearMap, original: GraphRun, *, seed: int) -> None:
        """Fit one map to the original net's values at its end, then rerun it with the new weights.

        A map that comes before everything that was cut is left alone: its inputs are the original's.
        """
        self.run.advance(linear.end)
        cut = bool(self._gone.get((linear.weight, 1)))
        self._changed = self._changed or cut
        kept = self.kept_channels(linear)
        if not self._changed or not kept.groups.numel() or not kept.outputs.numel():
            return
        if not cut and (linear.columns > WIDEST_REPAIR or not linear.intercept):
            return
        columns, rows = kept.columns(linear), kept.rows(linear)
        if _is_wide(len(columns), groups=len(rows)):
            self._refit_wide(linear, columns, kept, original, seed=seed)
            self.run.rerun(linear.chain)
            return
        prior = linear.folded(self.original_state)[columns]
        fits = self._fits(linear, prior, kept, original, seed=seed)
        weights = torch.zeros(linear.columns, rows.numel(), dtype=torch.float64)
        weights[columns] = torch.cat([fit.weights for fit in fits], 1)
        bias = torch.cat([fit.bias for fit in fits])
        write_refit(linear, self.state, weights=weights, bias=bias, outputs=rows.reshape(-1))
        self.residuals.append(_residual(linear, fits))
        self.run.rerun(linear.chain)

    def _fits(
        self, linear: LinearMap, prior: torch.Tensor, kept: KeptChannels, original: GraphRun, *, seed: int
    ) -> list[Refit]:
        """The fit of each of the map's groups."""
        moments = collect_moments(linear, original=original, pruned=self.run, kept=kept, seed=seed)
        return [
            refit_columns(part, prior=prior[:, rows], kept=torch.arange(len(prior)), intercept=linear.intercept)
            for rows, part in zip(kept.rows(linear), moments, strict=True)
        ]

    def _refit_wide(
        self, linear: LinearMap, columns: torch.Tensor, kept: KeptChannels, original: GraphRun, *, seed: int
    ) -> None:
        """Give each output one factor and one offset: a map this wide gets no matrix of its columns."""
        rows = kept.rows(linear)
        weights = linear.folded(self.original_state, dtype=self.original_state[linear.weight].dtype)
        sums = [ScaleAccumulator(weights[columns[:, None], part]) for part in rows]
        del weights
        for inputs, targets, held_out in calibration_rows(
            linear, original=original, pruned=self.run, kept=kept, seed=seed
        ):
            by_group = inputs.reshape(len(inputs), len(rows), len(columns))
            wanted = targets.reshape(len(targets), *rows.shape)
            for number, accumulator in enumerate(sums):
                accumulator.add(by_group[:, number], wanted[:, number], held_out=held_out)
        fits = [accumulator.refit(intercept=linear.intercept, with_weights=False) for accumulator in sums]
        write_scaled(
            linear,
            self.state,
            factor=torch.cat([accumulator.factor(intercept=linear.intercept) for accumulator in sums]),
            bias=torch.cat([fit.bias for fit in fits]),
            outputs=rows.reshape(-1),
        )
        self.residuals.append(_residual(linear, fits))

    def end_run(self) -> None:
        """Let go of the samples' activations; the net is as it is."""
        self.run.end()


def _is_wide(columns: int, *, groups: int) -> bool:
    """Whether the Gram matrices of a map's groups, and what is made of them, would take too much memory."""
    most = min(GRAM_COLUMNS, int((memory_to_plan_with() / GRAM_BYTES) ** 0.5))
    return groups * columns**2 > most**2


def _residual(linear: LinearMap, fits: Sequence[Refit]) -> ReaderResidual:
    variance = sum(fit.variance for fit in fits)
    error = sum(fit.error for fit in fits)
    return ReaderResidual(
        layer=linear.layer,
        relative_error=error / variance if variance > 0 else error,
        ridge=max(fit.ridge for fit in fits),
        rows=fits[0].rows,
        method="least-squares" if any(fit.method == "least-squares" for fit in fits) else "scale-and-bias",
    )
