"""Quantized twin of one float file: as few float layers as its accuracy allows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.quantization.calibration import NotQuantizableError, Ranges, Samples, activation_ranges, one_line
from edgefolio_pruner.quantization.equalization import equalized
from edgefolio_pruner.quantization.qdq import (
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
    equalized: bool


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
    except Exception as error:
        # What the runtime raises of a form that it cannot run has no common class, only a module.
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return Refusal(f"ONNX Runtime cannot run its quantized form ({one_line(error)})")


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A float model that gives the parent's answers, and the ranges of its activations."""

    model: onnx.ModelProto
    ranges: Ranges
    is_equalized: bool


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
        if not np.isfinite(self._wanted).all():
            raise NotQuantizableError("its answers to the calibration samples are not finite")
        if not weighted_layers(self._form.model):
            raise NotQuantizableError("it has no layer that the quantizer knows")
        float_layers: tuple[str, ...] | None = ()
        if not self._is_within(()):
            self._progress(stage=STAGE, fraction=0.3, message="ranking layers")
            float_layers = fewest_float_layers(self._ranked(), self._is_within)
        if float_layers is None:
            return Refusal(
                f"quantized it loses {self._losses[()]:.2f} points, and {min(self._losses.values()):.2f} with its most "
                f"sensitive layers float; methods.quantization.maxAccuracyLossPoints allows {self._most:g}"
            )
        made = self._quantized(float_layers)
        return Twin(
            content=made,
            loss_points=self._losses[float_layers],
            int8_layers=quantized_layers(made, layers_of(self._form.model)),
            float_layers=tuple(FloatLayer(name=name, residual=self._residuals[name]) for name in float_layers),
            equalized=self._form.is_equalized,
        )

    def _quantized(self, float_layers: Collection[str]) -> bytes:
        return quantized(self._form.model, self._form.ranges, float_layers=float_layers)

    @cached_property
    def _form(self) -> _Form:
        """The model as it is, or equalized, whichever answers more like the float one when it is all quantized."""
        plain = self._with_ranges(load_float(self._content))
        even = equalized(plain.model, plain.ranges) if weighted_layers(plain.model) else None
        if even is None:
            return plain
        other = self._with_ranges(even, is_equalized=True)
        return min((plain, other), key=lambda form: self._residual(quantized(form.model, form.ranges)))

    def _with_ranges(self, model: onnx.ModelProto, *, is_equalized: bool = False) -> _Form:
        ranges = activation_ranges(model, self._calibration, threads=self._threads)
        tensor = ranges.not_finite()
        if tensor is not None:
            raise NotQuantizableError(f"the values of {tensor!r} on the calibration samples are not finite")
        return _Form(model=model, ranges=ranges, is_equalized=is_equalized)

    def _residual(self, made: bytes) -> float:
        samples = self._calibration[:_RANKING_SAMPLES]
        return residual(outputs_of(made, samples, threads=self._threads), self._wanted)

    @cached_property
    def _wanted(self) -> Outputs:
        return outputs_of(self._content, self._calibration[:_RANKING_SAMPLES], threads=self._threads)

    @cached_property
    def _float_accuracy(self) -> float:
        return self._accuracy(self._content)

    def _is_within(self, float_layers: tuple[str, ...]) -> bool:
        """Whether the model with these layers float loses no more than it may."""
        if weighted_layers(self._form.model) <= set(float_layers):
            return False
        made = self._quantized(float_layers)
        self._losses[float_layers] = self._float_accuracy - self._accuracy(made)
        return self._losses[float_layers] <= self._most + 1e-9

    def _ranked(self) -> tuple[str, ...]:
        """Layers by the residual of the output where each alone is quantized, the largest first."""
        names = layers_of(self._form.model)
        for position, name in enumerate(names):
            self._progress(stage=STAGE, fraction=0.3 + 0.4 * position / len(names), message=f"ranking {name}")
            self._residuals[name] = self._residual(self._quantized([other for other in names if other != name]))
        return tuple(sorted(names, key=lambda name: (-self._residuals[name], name)))
