"""Plans of a split: from a dense model to shards that are measured, one for each part of the traffic that is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from edgefolio.errors import UserError
from edgefolio_pruner.calibrating.calibration import HOLD_OUT_EVERY
from edgefolio_pruner.calibrating.graph_run import peak_bytes_per_sample
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.split.certificate import certify
from edgefolio_pruner.split.channels.adjusting import LayerResidual, adjust
from edgefolio_pruner.split.channels.assignment import Objective, restructure
from edgefolio_pruner.split.channels.ownership import Ownership, contiguous, everything, masked
from edgefolio_pruner.split.channels.sending import choose_sent, elimination_orders
from edgefolio_pruner.split.channels.statistics import State, survey
from edgefolio_pruner.split.channels.swapping import swap_units
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.exchanges.points import Divided
from edgefolio_pruner.split.making import MadeSplit, make_split
from edgefolio_pruner.split.rows.shards import make_row_split
from edgefolio_pruner.split.shards.ranges import measure_ranges
from edgefolio_split.executor import SplitExecutor

__all__ = ["KEEPS", "PlannedSplit", "Recipe", "ShapedSplit", "SplitPlanner", "require_possible"]

#: Parts of the traffic of a dense exchange that plans keep.
KEEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.0)
LEAST_SAMPLES = 64
CHUNK_SAMPLES = 64
#: What both networks' activations may take.
MEMORY_BYTES = 2 << 30
#: What one synchronisation costs, as a part of the mean bytes of an exchange that sends everything.
EXCHANGE_PRICE = 0.1
_STAGE = "split"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which of the steps are taken: all of them, unless their worth is measured."""

    restructure: bool = True
    swaps: bool = True
    second_order: bool = True
    adjust: bool = True
    relu_aware: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class ShapedSplit:
    """Owners, transfers and weights of one plan, before there are shards: ``state`` is that of the masked net.

    ``keep`` of the dense exchange's bytes were asked for, ``dense_bytes`` is all of them and ``bytes_in`` what is sent
    into all workers, each in float32. The objective is that of restructuring, the swap loss that of the swaps.
    """

    keep: float
    ownership: Ownership
    state: State
    dense_bytes: int
    bytes_in: int
    start: str
    contiguous_objective: float
    objective: float
    swap_loss_before: float
    swap_loss: float
    residuals: tuple[LayerResidual, ...]
    exact: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannedSplit:
    """One plan with its shards. By rows there is no :class:`ShapedSplit`: the weights are the dense model's."""

    shaped: ShapedSplit | None
    made: MadeSplit
    seconds: float

    @property
    def keep(self) -> float | None:
        """The part of the dense exchange's bytes that was asked for, of a plan by channels."""
        return None if self.shaped is None else self.shaped.keep

    @property
    def title(self) -> str:
        """The plan in a few words."""
        return "rows" if self.keep is None else f"channels, {100 * self.keep:g} %"

    @property
    def bytes_in(self) -> int:
        """Bytes a sample into all workers."""
        plan = self.made.plan
        return sum(plan.bytes_into(rank) for rank in range(plan.workers))

    def executor(self) -> SplitExecutor:
        """The reference executor of its shards."""
        return SplitExecutor(self.made.plan, lambda name: self.made.files[name])


class SplitPlanner:
    """Plans of one model for one number of workers and one set of calibration samples; labels are never read."""

    def __init__(
        self,
        captured: CapturedModel,
        calibration: torch.Tensor,
        *,
        shares: Sequence[int],
        seed: int = 0,
        field: str = "--workers",
        progress: Progress = no_progress,
    ) -> None:
        """Survey the dense model. Raises :class:`~edgefolio.errors.UserError` if it cannot be divided so."""
        require_possible(captured, calibration)
        self.captured, self._shares, self._seed, self._field = captured, tuple(shares), seed, field
        self._progress = progress
        self.divided = divide(captured)
        self._first = contiguous(self.divided, shares, field=field)
        per_sample = peak_bytes_per_sample(captured.graph_module.graph, dict(captured.parameters), calibration[:2])
        self.samples = max(LEAST_SAMPLES, min(len(calibration), int(MEMORY_BYTES / (2 * per_sample))))
        used = calibration[: self.samples]
        self._chunks = list(torch.split(used, CHUNK_SAMPLES))
        progress(stage=_STAGE, fraction=0.0, message="surveying the dense model")
        with torch.no_grad():
            self.survey = survey(self.divided, captured, self._chunks, seed=seed)
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
        self, keep: float, *, wire: Literal["Float32", "UInt8"] = "Float32", recipe: Recipe | None = None
    ) -> PlannedSplit:
        """The plan that sends at most this part of the dense exchange's bytes."""
        started = time.perf_counter()
        shaped = self.shape(keep, recipe=recipe)
        self._tell(keep, 0.8, "writing the shards")
        notes = [f"all columns are kept at {text}" for text in self.survey.whole]
        notes += [f"one factor a channel instead of a fit, {text}" for text in self.survey.scarce]
        if not shaped.exact and not self.survey.scarce:
            notes.append("some layers are too wide for exact second-order selection; one factor a channel was used")
        ranges = None
        if wire == "UInt8":
            ranges = measure_ranges(divide(self.captured.with_state(shaped.state)), self._chunks)
        made = make_split(
            self.captured,
            shaped.ownership,
            state=shaped.state,
            shares=self._shares,
            ranges=ranges,
            notes=[note[:1000] for note in notes],
        )
        return PlannedSplit(shaped=shaped, made=self._certified(made), seconds=time.perf_counter() - started)

    def by_rows(self) -> PlannedSplit:
        """The plan by rows, which loses nothing. Raises :class:`UserError` if the model has no rows, or too few."""
        started = time.perf_counter()
        self._progress(stage=_STAGE, fraction=0.0, message="dividing by rows")
        with torch.no_grad():
            made = make_row_split(self.captured, shares=self._shares)
        return PlannedSplit(shaped=None, made=self._certified(made), seconds=time.perf_counter() - started)

    def shape(self, keep: float, *, recipe: Recipe | None = None) -> ShapedSplit:
        """Owners, transfers and weights of a plan, without its shards."""
        with torch.no_grad():
            return self._shape(keep, Recipe() if recipe is None else recipe)

    def _shape(self, keep: float, recipe: Recipe) -> ShapedSplit:
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
            mean = orders.total_bytes / len(self.survey.exchanges)
            ownership = choose_sent(
                divided, orders, budget=int(keep * orders.total_bytes), exchange_bytes=int(EXCHANGE_PRICE * mean)
            )
        residuals: tuple[LayerResidual, ...] = ()
        if recipe.adjust and not lossless:
            self._tell(keep, 0.6, "adjusting the weights")
            adjusted = adjust(
                divided, self.captured, ownership, self._chunks, seed=self._seed, relu_aware=recipe.relu_aware
            )
            state, residuals = adjusted.state, adjusted.residuals
        else:
            state = masked(divided, ownership, dict(self.captured.parameters))
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

    def _certified(self, made: MadeSplit) -> MadeSplit:
        """The plan with what its shards, wire included, are off by on held-out samples."""
        executor = SplitExecutor(made.plan, lambda name: made.files[name])
        found = [executor.run(chunk.numpy()).outputs[0] for chunk in torch.split(self._held_out, CHUNK_SAMPLES)]
        dense = self._dense if isinstance(self._dense, torch.Tensor) else _first_tensor(self._dense)
        certificate = certify(dense.numpy(), np.concatenate(found))
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


def require_possible(captured: CapturedModel, calibration: torch.Tensor) -> None:
    """Raise :class:`~edgefolio.errors.UserError` for a model or samples that no split can be planned with."""
    if len(captured.input_shapes) != 1:
        raise UserError(
            f"the model has {len(captured.input_shapes)} inputs; only models with one can be divided.",
            field="--workers",
            remedy="Serve it on one node.",
        )
    if len(calibration) < LEAST_SAMPLES:
        raise UserError(
            f"a split needs at least {LEAST_SAMPLES} calibration samples.",
            field="spec.data.calibrationSamples",
            value=len(calibration),
            remedy="Give 256 to 1024 samples.",
        )
    if not bool(torch.isfinite(calibration).all()):
        raise UserError(
            "calibration samples are not finite.",
            field="spec.data.trainingURI",
            remedy="Remove samples that hold NaN or infinite values.",
        )
    for name, tensor in captured.parameters.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                "weights are not finite.",
                field="spec.source.weightsURI",
                value=name,
                remedy="Train the model again, or give other weights.",
            )
