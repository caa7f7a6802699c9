"""Plans of a split: from a dense model to shards that are measured, one for each part of the traffic that is kept."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from edgefolio_pruner.calibrating.calibration import HOLD_OUT_EVERY
from edgefolio_pruner.calibrating.graph_run import peak_bytes_per_sample
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.certificate import certify
from edgefolio_pruner.split.channels.adjusting import LayerResidual, adjust
from edgefolio_pruner.split.channels.assignment import Objective, restructure
from edgefolio_pruner.split.channels.fine_tuning import Tuning, fine_tune
from edgefolio_pruner.split.channels.ownership import Ownership, contiguous, everything, masked
from edgefolio_pruner.split.channels.sending import choose_parts, choose_sent, elimination_orders, lost_at
from edgefolio_pruner.split.channels.statistics import State, survey
from edgefolio_pruner.split.channels.swapping import swap_units
from edgefolio_pruner.split.cutting import Cut
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.exchanges.points import Divided
from edgefolio_pruner.split.making import MadeSplit, make_split
from edgefolio_pruner.split.planned import PlannedSplit, Recipe, ShapedSplit
from edgefolio_pruner.split.requirements import LEAST_SAMPLES, require_possible
from edgefolio_pruner.split.row_making import make_row_split
from edgefolio_pruner.split.rows.plan import plan_rows
from edgefolio_pruner.split.shards.ranges import measure_ranges, measure_row_ranges
from edgefolio_pruner.split.shards.wire import SlotRanges
from edgefolio_split.executor import SplitExecutor

__all__ = ["SplitPlanner"]

CHUNK_SAMPLES = 64
#: What both networks' activations may take.
MEMORY_BYTES = 2 << 30
#: What one synchronisation costs, as a part of the mean bytes of an exchange that sends everything.
EXCHANGE_PRICE = 0.1
#: What loss curves are drawn for: the part of all bytes for which channels are assigned.
_FEW_BYTES = 0.2
_STAGE = "split"


class SplitPlanner:
    """Plans of one model for one number of workers and one set of calibration samples; labels are never read."""

    def __init__(
        self,
        captured: CapturedModel,
        calibration: torch.Tensor,
        *,
        shares: Sequence[int],
        seed: int = 0,
        cut: Cut | None = None,
        field: str = "--workers",
        progress: Progress = no_progress,
    ) -> None:
        """Survey the dense model; with a ``cut`` what is behind it, and in front it is divided by rows.

        Raises :class:`~edgefolio.errors.UserError` if it cannot be divided so.
        """
        require_possible(captured, calibration)
        self.captured, self._shares, self._seed, self._field = captured, tuple(shares), seed, field
        self._progress, self._cut = progress, cut
        #: What is divided by channels.
        self.body = captured if cut is None else cut.behind
        self.divided = divide(self.body)
        self._first = contiguous(self.divided, shares, field=field)
        per_sample = peak_bytes_per_sample(captured.graph_module.graph, dict(captured.parameters), calibration[:2])
        self.samples = max(LEAST_SAMPLES, min(len(calibration), int(MEMORY_BYTES / (2 * per_sample))))
        used = calibration[: self.samples]
        self._inputs = list(torch.split(used, CHUNK_SAMPLES))
        progress(stage=_STAGE, fraction=0.0, message="surveying the dense model")
        with torch.no_grad():
            self._chunks = self._inputs if cut is None else [cut.before.graph_module(chunk) for chunk in self._inputs]
            self.survey = survey(self.divided, self.body, self._chunks, seed=seed)
            self._held_out = used[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]
            self._dense = captured.graph_module(self._held_out)
        self._objective = Objective(self.divided, self.survey)

    @property
    def dense_bytes(self) -> int:
        """Bytes a sample of an exchange of all channels in float32, into all workers."""
        return _total(Ownership(self.workers, self._first, everything(self.divided, self.workers)), self.divided)

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self._shares)

    def plan(
        self,
        keep: float | Mapping[str, float],
        *,
        wire: Literal["Float32", "UInt8"] = "Float32",
        fused: Collection[str] = (),
        recipe: Recipe | None = None,
        tuning: Tuning | None = None,
    ) -> PlannedSplit:
        """The plan that sends at most this part of the dense exchange's bytes, or this part of each exchange's.

        Exchanges are named by the layer that reads them. Those of the ``fused`` values in front of the cut are left
        out.
        """
        started = time.perf_counter()
        shaped = self.shape(keep, recipe=recipe)
        if tuning is not None and shaped.loses:
            shaped = self.tuned(shaped, tuning)
        self._tell(shaped.keep, 0.8, "writing the shards")
        notes = [f"all columns are kept at {text}" for text in self.survey.whole]
        notes += [f"one factor a channel instead of a fit, {text}" for text in self.survey.scarce]
        if not shaped.exact and not self.survey.scarce:
            notes.append("some layers are too wide for exact second-order selection; one factor a channel was used")
        ranges = None
        if wire == "UInt8":
            ranges = self._ranges(shaped.state, fused)
        made = make_split(
            self.body,
            shaped.ownership,
            state=shaped.state,
            shares=self._shares,
            before=self._cut,
            fused=fused,
            ranges=ranges,
            notes=[note[:1000] for note in notes],
        )
        return PlannedSplit(shaped=shaped, made=self.certified(made), seconds=time.perf_counter() - started)

    def _ranges(self, state: State, fused: Collection[str]) -> dict[str, SlotRanges]:
        """The ranges of all that travels."""
        ranges = measure_ranges(divide(self.body.with_state(state)), self._chunks)
        if self._cut is not None:
            rows = plan_rows(self._cut.before, self._shares, fused=fused, first_number=len(self.divided.points))
            ranges |= measure_row_ranges(rows.program.module, rows.points.values(), self._inputs)
        return ranges

    def by_rows(self, fused: Collection[str] = ()) -> PlannedSplit:
        """The plan by rows, which loses nothing. Raises :class:`UserError` if the model has no rows, or too few."""
        started = time.perf_counter()
        self._progress(stage=_STAGE, fraction=0.0, message="dividing by rows")
        with torch.no_grad():
            made = make_row_split(self.captured, shares=self._shares, fused=fused)
        return PlannedSplit(shaped=None, made=self.certified(made), seconds=time.perf_counter() - started)

    def shape(self, keep: float | Mapping[str, float], *, recipe: Recipe | None = None) -> ShapedSplit:
        """Owners, transfers and weights of a plan, without its shards."""
        with torch.no_grad():
            keeps = keep if isinstance(keep, Mapping) else None
            return self._shape(self._mean(keep), keeps, Recipe() if recipe is None else recipe)

    def tuned(self, shaped: ShapedSplit, tuning: Tuning) -> ShapedSplit:
        """The plan with weights that gradient steps have brought nearer to the dense model's outputs.

        Judged on held-out calibration samples; where they are no nearer, the plan as it was.
        """
        cut = self._cut
        state = fine_tune(
            self.divided,
            self.body,
            shaped.state,
            shaped.ownership,
            tuning,
            before=(lambda inputs: inputs) if cut is None else cut.before.graph_module,
            seed=self._seed,
            progress=self._progress,
        )
        tuned = replace(shaped, state=state)
        return tuned if self._error(tuned) < self._error(shaped) else shaped

    def _error(self, shaped: ShapedSplit) -> float:
        """Mean square of what the masked net is off by on held-out samples."""
        net = self.body.with_state(shaped.state).graph_module
        with torch.no_grad():
            inputs = self._held_out if self._cut is None else self._cut.before.graph_module(self._held_out)
            return float((_first_tensor(net(inputs)) - _first_tensor(self._dense)).square().mean())

    def losses(self, keeps: Sequence[float]) -> dict[str, tuple[float, ...]]:
        """Of each exchange that can be pruned what it loses at each of ``keeps``, with owners for few bytes.

        In parts of the variance of what its readers compute, before anything is adjusted beside the reader.
        """
        with torch.no_grad():
            objective = self._objective.at_keep(_FEW_BYTES, self._first, self.workers)
            owner = restructure(self.divided, objective, self._shares, field=self._field).owner
            orders = elimination_orders(self.survey, owner, self.workers)
        return {
            exchange.point.place: tuple(lost_at(orders, number, keep) for keep in keeps)
            for number, exchange in enumerate(self.survey.exchanges)
        }

    def _mean(self, keep: float | Mapping[str, float]) -> float:
        """The part of all bytes that these parts of the exchanges' are."""
        if not isinstance(keep, Mapping):
            return keep
        sizes = {each.point.place: int(each.block_bytes.sum()) for each in self.survey.exchanges}
        total = sum(sizes.values())
        return sum(size * keep.get(place, 0.0) for place, size in sizes.items()) / total if total else 1.0

    def _shape(self, keep: float, keeps: Mapping[str, float] | None, recipe: Recipe) -> ShapedSplit:
        workers, divided = self.workers, self.divided
        owner, start = self._first, "contiguous"
        objective = self._objective.at_keep(keep, owner, workers)
        before = value = objective.value(owner, workers)
        swap_before = swap_after = 0.0
        # Nothing is lost then, whoever owns what.
        lossless = keep >= 1 or workers == 1 or not self.survey.exchanges
        if recipe.restructure and not lossless:
            self._tell(keep, 0.1, "assigning channels")
            found = restructure(divided, objective, self._shares, field=self._field)
            owner, start, value = found.owner, found.start, found.values[-1]
            if recipe.swaps:
                self._tell(keep, 0.2, "swapping channels")
                sent = objective.sent(owner, workers)
                swapped = swap_units(divided, self.survey, owner, sent, workers=workers, seed=self._seed)
                owner, swap_before, swap_after = swapped.owner, swapped.before, swapped.after
        ownership = Ownership(workers, owner, everything(divided, workers))
        dense_bytes = _total(ownership, divided)
        exact = True
        if not lossless:
            self._tell(keep, 0.4, "choosing what is sent")
            orders = elimination_orders(self.survey, owner, workers, second_order=recipe.second_order)
            exact = orders.exact
            if keeps is not None:
                ownership = choose_parts(divided, orders, keeps)
            else:
                mean = orders.total_bytes / len(self.survey.exchanges)
                ownership = choose_sent(
                    divided, orders, budget=int(keep * orders.total_bytes), exchange_bytes=int(EXCHANGE_PRICE * mean)
                )
        residuals: tuple[LayerResidual, ...] = ()
        if recipe.adjust and not lossless:
            self._tell(keep, 0.6, "adjusting the weights")
            adjusted = adjust(
                divided, self.body, ownership, self._chunks, seed=self._seed, relu_aware=recipe.relu_aware
            )
            state, residuals = adjusted.state, adjusted.residuals
        else:
            state = masked(divided, ownership, dict(self.body.parameters))
        return ShapedSplit(
            keep=keep,
            ownership=ownership,
            state=state,
            dense_bytes=dense_bytes,
            bytes_in=_total(ownership, divided),
            start=start,
            contiguous_objective=before,
            objective=value,
            swap_loss_before=swap_before,
            swap_loss=swap_after,
            residuals=residuals,
            exact=exact,
        )

    def certified(self, made: MadeSplit) -> MadeSplit:
        """The plan with what its shards, wire included, are off by on held-out samples."""
        executor = SplitExecutor(made.plan, lambda name: made.files[name])
        found = [executor.run(chunk.numpy()).outputs[0] for chunk in torch.split(self._held_out, CHUNK_SAMPLES)]
        certificate = certify(_first_tensor(self._dense).numpy(), np.concatenate(found))
        return MadeSplit(made.plan.model_copy(update={"certificate": certificate}), made.files)

    def _tell(self, keep: float, fraction: float, what: str) -> None:
        self._progress(stage=_STAGE, fraction=fraction, message=f"keeping {100 * keep:g} % of the traffic: {what}")


def _total(ownership: Ownership, divided: Divided) -> int:
    return sum(sum(counts) for counts in ownership.bytes_in(divided).values())


def _first_tensor(outputs: object) -> torch.Tensor:
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    found = leaves[0]
    assert isinstance(found, torch.Tensor)
    return found
