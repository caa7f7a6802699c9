"""Making of plans that were searched for: one survey of the network for each change-over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.channels.fine_tuning import Tuning
from edgefolio_pruner.split.cutting import cuts_of
from edgefolio_pruner.split.planned import PlannedSplit
from edgefolio_pruner.split.planning import SplitPlanner
from edgefolio_pruner.split.search.spec import PlanSpec

__all__ = ["PlanMaker"]


class PlanMaker:
    """Makes plans of one model for one number of workers and one set of calibration samples."""

    def __init__(
        self,
        captured: CapturedModel,
        calibration: torch.Tensor,
        *,
        shares: Sequence[int],
        seed: int = 0,
        tuning: Tuning | None = None,
        field: str = "--workers",
        progress: Progress = no_progress,
    ) -> None:
        """Survey the whole network; with ``tuning`` the weights of plans that lose something are fine-tuned.

        Raises :class:`~edgefolio.errors.UserError` if it cannot be divided so.
        """
        self._captured, self._calibration, self._shares, self._seed = captured, calibration, tuple(shares), seed
        self._field, self._progress, self._tuning = field, progress, tuning
        self._behind: tuple[str, SplitPlanner] | None = None
        self.whole = self._planner(None)

    def made(self, spec: PlanSpec, *, wire: Literal["Float32", "UInt8"]) -> PlannedSplit:
        """The plan with its shards; by rows alone on a Float32 wire."""
        if spec.layout == "Rows":
            return self.whole.by_rows(spec.fused)
        planner = self.whole if spec.rows_until is None else self._behind_cut(spec.rows_until)
        return planner.plan(dict(spec.keeps), wire=wire, fused=spec.fused, tuning=self._tuning)

    def _behind_cut(self, until: str) -> SplitPlanner:
        # One is held at a time: a survey holds the moments of all layers.
        if self._behind is None or self._behind[0] != until:
            self._behind = None
            self._behind = (until, self._planner(until))
        return self._behind[1]

    def _planner(self, until: str | None) -> SplitPlanner:
        cut = None if until is None else next(each for each in cuts_of(self._captured) if each.until == until)
        return SplitPlanner(
            self._captured,
            self._calibration,
            shares=self._shares,
            seed=self._seed,
            cut=cut,
            field=self._field,
            progress=self._progress,
        )
