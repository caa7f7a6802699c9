"""Quantized twin of one float file: as few float layers as its accuracy allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.quantization.calibration import Ranges, Samples, activation_ranges
from edgefolio_pruner.quantization.qdq import (
    NotQuantizableError,
    layers_of,
    load_float,
    quantized,
    quantized_layers,
    weighted_layers,
)
from edgefolio_pruner.quantization.sensitivity import Outputs, fewest_float_layers, outputs_of, residual

#: Samples on which layers are ranked; all calibration samples give the ranges.
_RANKING_SAMPLES = 128
STAGE = "quantization"


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """A layer that stays float, and the residual of the output with this layer alone quantized."""

    name: str
    residual: float


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A quantized file, its loss against its parent in points, and its layers."""

    content: bytes
    loss_points: float
    int8_layers: tuple[str, ...]
    float_layers: tuple[FloatLayer, ...]
    equalized: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why a model has no twin, as a sentence without its end."""

    reason: str


def make_twin(
    content: bytes,
    *,
    calibration: Samples,
    accuracy_percent: Callable[[bytes], float],
    max_loss_points: float,
    threads: int,
    progress: Progress = no_progress,
) -> Twin | Refusal:
    """The twin of the float file ``content`` that loses at most ``max_loss_points`` of ``accuracy_percent``."""
    try:
        return _Work(content, calibration, accuracy_percent, max_loss_points, threads, progress).twin()
    except NotQuantizableError as error:
        return Refusal(str(error))


class _Work:
    def __init__(
        self,
        content: bytes,
        calibration: Samples,
        accuracy_percent: Callable[[bytes], float],
        max_loss_points: float,
        threads: int,
        progress: Progress,
    ) -> None:
        self._content, self._calibration, self._accuracy = content, calibration, accuracy_percent
        self._most, self._threads, self._progress = max_loss_points, threads, progress
        self._residuals: dict[str, float] = {}
        self._losses: dict[tuple[str, ...], float] = {}

    def twin(self) -> Twin | Refusal:
        if not weighted_layers(self._model):
            raise NotQuantizableError("it has no layer that the quantizer knows")
        if not np.isfinite(self._wanted).all():
            raise NotQuantizableError("its answers to the calibration samples are not finite")
        float_layers: tuple[str, ...] | None = ()
        if not self._is_within(()):
            self._progress(stage=STAGE, fraction=0.3, message="ranking layers")
            float_layers = fewest_float_layers(self._ranked(), self._is_within)
        if float_layers is None:
            return Refusal(
                f"quantized it loses {self._losses[()]:.2f} points, and {min(self._losses.values()):.2f} with its most "
                f"sensitive layers float; methods.quantization.maxAccuracyLossPoints allows {self._most:g}"
            )
        made = quantized(self._model, self._ranges, float_layers=float_layers)
        return Twin(
            content=made,
            loss_points=self._losses[float_layers],
            int8_layers=quantized_layers(made, layers_of(self._model)),
            float_layers=tuple(FloatLayer(name=name, residual=self._residuals[name]) for name in float_layers),
        )

    @cached_property
    def _model(self) -> onnx.ModelProto:
        return load_float(self._content)

    @cached_property
    def _ranges(self) -> Ranges:
        ranges = activation_ranges(self._model, self._calibration, threads=self._threads)
        tensor = ranges.not_finite()
        if tensor is not None:
            raise NotQuantizableError(f"the values of {tensor!r} on the calibration samples are not finite")
        return ranges

    @cached_property
    def _wanted(self) -> Outputs:
        return outputs_of(self._content, self._calibration[:_RANKING_SAMPLES], threads=self._threads)

    @cached_property
    def _float_accuracy(self) -> float:
        return self._accuracy(self._content)

    def _is_within(self, float_layers: tuple[str, ...]) -> bool:
        """Whether the model with these layers float loses no more than it may."""
        if weighted_layers(self._model) <= set(float_layers):
            return False
        made = quantized(self._model, self._ranges, float_layers=float_layers)
        self._losses[float_layers] = self._float_accuracy - self._accuracy(made)
        return self._losses[float_layers] <= self._most + 1e-9

    def _ranked(self) -> tuple[str, ...]:
        """Layers by the residual of the output where each alone is quantized, the largest first."""
        names = layers_of(self._model)
        samples = self._calibration[:_RANKING_SAMPLES]
        for position, name in enumerate(names):
            self._progress(stage=STAGE, fraction=0.3 + 0.4 * position / len(names), message=f"ranking {name}")
            alone = quantized(self._model, self._ranges, float_layers=[other for other in names if other != name])
            self._residuals[name] = residual(outputs_of(alone, samples, threads=self._threads), self._wanted)
        return tuple(sorted(names, key=lambda name: (-self._residuals[name], name)))
