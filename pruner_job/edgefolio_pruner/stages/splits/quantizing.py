"""Quantization of the shards of a plan, by the samples and the bound of ``methods.quantization``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio.manifest import FloatLayer, QuantizationRecord
from edgefolio.specification import ModelPortfolio, Quantization
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.quantization import Refusal, require_calibration
from edgefolio_pruner.quantization.shards import quantize_split
from edgefolio_pruner.scoring import Judge
from edgefolio_pruner.split.plan_making import PlanMaker
from edgefolio_pruner.split.planned import PlannedSplit
from edgefolio_pruner.stages.quantized_candidates import quantization_of
from edgefolio_split.executor import SplitExecutor

__all__ = ["QuantizedPlan", "SplitQuantizer", "accuracy_of"]


@dataclass(frozen=True, kw_only=True)
class QuantizedPlan:
    """A plan with quantized shards, and what is to be told of them."""

    plan: PlannedSplit
    record: QuantizationRecord


class SplitQuantizer:
    """Quantizes plans of one source. Raises :class:`UserError` if the data cannot calibrate any."""

    def __init__(self, source: MakingSource, settings: Quantization, *, threads: int) -> None:
        self._source, self._settings, self._threads = source, settings, threads
        require_calibration(self.calibration)

    @classmethod
    def of(cls, portfolio: ModelPortfolio, source: MakingSource, *, threads: int) -> SplitQuantizer:
        """By the portfolio's ``methods.quantization``. Raises :class:`UserError` where there is none."""
        settings = quantization_of(portfolio)
        if settings is None:
            raise UserError(
                "shards are quantized by the samples and the bound of methods.quantization, which is not there.",
                field="--precision",
                value="Int8",
                remedy="Write methods.quantization: {precision: Int8}, which also makes models of one node to "
                "compare with.",
            )
        return cls(source, settings, threads=threads)

    @property
    def key(self) -> dict[str, Any]:
        """What a quantized plan depends on besides its float form, for keys of kept results."""
        return {"precision": "Int8", "quantization": self._settings.model_dump(mode="json")}

    @cached_property
    def calibration(self) -> npt.NDArray[np.float32]:
        """The samples that give the ranges."""
        return self._source.data.calibration(self._settings.calibration_samples, seed=self._source.seed)

    def quantized(
        self, found: PlannedSplit, plans: PlanMaker, *, name: str, judge: Judge, progress: Progress = no_progress
    ) -> QuantizedPlan | Refusal:
        """The plan with quantized shards, as few float layers as the bound allows, and its certificate."""
        most = float(self._settings.max_accuracy_loss_points)
        result = quantize_split(
            found.made,
            calibration=self.calibration,
            accuracy_percent=lambda executor: accuracy_of(executor, judge),
            max_loss_points=most,
            threads=self._threads,
            progress=progress,
        )
        if isinstance(result, Refusal):
            return result
        return QuantizedPlan(
            plan=replace(found, made=plans.whole.certified(result.made)),
            record=QuantizationRecord(
                float_parent=f"{name}-float32",
                calibration_samples=len(self.calibration),
                accuracy_loss_points=result.loss_points,
                max_accuracy_loss_points=most,
                int8_layers=len(result.int8_layers),
                float_layers=tuple(
                    FloatLayer(name=layer.name, residual=layer.residual) for layer in result.float_layers
                ),
                equalized=result.equalized,
            ),
        )


def accuracy_of(executor: SplitExecutor, judge: Judge) -> float:
    """The score of a split on the validation samples, its wire included, in percent."""
    measured = judge.measure_answers(lambda inputs: executor.run(inputs[0]).outputs, "validation")
    return measured.accuracy.percent
