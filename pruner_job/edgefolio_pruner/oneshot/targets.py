"""Pruning of one model to several targets, with one survey of its channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from edgefolio_pruner.oneshot.cascade import GroupSurvey, PrunedNet, State, survey_groups
from edgefolio_pruner.oneshot.graph_run import GraphRun, peak_bytes_per_sample
from edgefolio_pruner.oneshot.readers import Reader, channel_step
from edgefolio_pruner.oneshot.shares import LAST_OVER_FIRST, GroupLosses, MacsModel, macs_model, plan_shares
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.spatial import CapturedModel, ChannelGroup

#: Bytes of activations held at a time, over all nets that run side by side.
MEMORY_BYTES = 2 * 1024**3
#: With fewer calibration samples nothing can be held out.
LEAST_SAMPLES = 8
#: Samples that go through the graph together.
CHUNK_SAMPLES = 64


class TargetPruner:
    """All variants of one model on one set of calibration samples; :meth:`run` once."""

    def __init__(
        self,
        captured: CapturedModel,
        *,
        groups: tuple[ChannelGroup, ...],
        readers: tuple[Reader, ...],
        calibration: torch.Tensor,
        percents: Sequence[int],
        seed: int,
        progress: Progress,
    ) -> None:
        self._graph = captured.graph_module.graph
        self._state: State = captured.parameters
        self._readers = readers
        self._percents = tuple(percents)
        self._seed = seed
        self._progress = progress
        self._steps_done = 0
        #: An upper bound until the plans for each target are known.
        self._candidates = len(self._percents) * len(LAST_OVER_FIRST)
        self.model: MacsModel = macs_model(self._graph, self._state, groups)
        per_sample = peak_bytes_per_sample(self._graph, self._state, calibration[:2])
        self.samples = max(LEAST_SAMPLES, min(len(calibration), int(MEMORY_BYTES / (2 * per_sample))))
        self._side_by_side = max(1, int(MEMORY_BYTES / (self.samples * per_sample)) - 1)
        self._chunks = list(torch.split(calibration[: self.samples], CHUNK_SAMPLES))
        self.notes: list[str] = []
        if self.samples < len(calibration):
            self.notes.append(
                f"{self.samples} of {len(calibration)} calibration samples were used: more do not fit into memory"
            )

    def run(self) -> list[PrunedNet]:
        """Rank, allocate, prune and re-fit: one net per target, in the order of the targets.

        Several plans are made for each target, and the net with the least error at its end is taken.
        """
        survey = survey_groups(
            self._graph, self._state, self._chunks, self._readers, seed=self._seed, done=self._reporter("ranked")
        )
        inexact = [name for name, found in survey.items() if not found.elimination.exact]
        if inexact:
            self.notes.append(
                f"too wide, or too few samples, for exact selection; ranked by contribution: {', '.join(inexact)}"
            )
        plans = self._plans(survey)
        self._candidates = sum(map(len, plans))
        return [self._best(candidates, survey) for candidates in plans]

    def _best(self, plans: Sequence[dict[str, int]], survey: Mapping[str, GroupSurvey]) -> PrunedNet:
        """Prune and re-fit by each of ``plans``; only the net with the least error is kept."""
        best: list[PrunedNet] = []
        for start in range(0, len(plans), self._side_by_side):
            batch = [
                PrunedNet(self._graph, self._state, self._chunks, self._readers, survey=survey, dropped=dropped)
                for dropped in plans[start : start + self._side_by_side]
            ]
            self._cascade(batch)
            best = [min(best + batch, key=lambda net: net.error)]
        return best[0]

    def _plans(self, survey: Mapping[str, GroupSurvey]) -> list[list[dict[str, int]]]:
        """The different plans for each target."""
        losses = [
            GroupLosses(name, found.relative_increases, channel_step(self.model.channels[name]))
            for name, found in survey.items()
        ]
        dense = self.model.macs(self.model.channels)
        plans: list[list[dict[str, int]]] = []
        for percent in self._percents:
            different: list[dict[str, int]] = []
            for last_over_first in LAST_OVER_FIRST:
                plan = plan_shares(
                    losses, model=self.model, target=dense * percent / 100, last_over_first=last_over_first
                )
                if plan not in different:
                    different.append(plan)
            plans.append(different)
        return plans

    def _cascade(self, nets: list[PrunedNet]) -> None:
        hold = [pair for reader in self._readers for pair in reader.held]
        original = GraphRun(self._graph, self._state, self._chunks, hold=hold)
        report = self._reporter("re-fitted")
        for index, reader in enumerate(self._readers):
            original.advance(reader.end)
            for net in nets:
                net.refit(reader, original, seed=self._seed + index)
                report(reader.layer)

    def _reporter(self, what: str) -> Callable[[str], None]:
        ranked = sum(reader.group is not None for reader in self._readers)
        steps = ranked + len(self._readers) * self._candidates

        def report(layer: str) -> None:
            self._steps_done += 1
            self._progress(stage="one-shot", fraction=self._steps_done / steps, message=f"{what} {layer}")

        return report
