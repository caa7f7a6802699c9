"""Quantized twin of one float file: as few float layers as its accuracy allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.quantization.calibration import NotQuantizableError, Ranges, Samples, activation_ranges
from edgefolio_pruner.quantization.equalization import equalized
from edgefolio_pruner.quantization.float_layers import (
    FloatLayer,
    Refusal,
    choose_float_layers,
    or_refusal,
)
from edgefolio_pruner.quantization.qdq import (
    layers_of,
    load_float,
    quantized,
    quantized_layers,
    weighted_layers,
)
from edgefolio_pruner.quantization.sensitivity import Outputs, outputs_of, residual

#: Samples on which layers are ranked; all calibration samples give the ranges.
RANKING_SAMPLES = 128


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A quantized file, its loss against its parent in points, and its layers."""

    content: bytes
    loss_points: float
    int8_layers: tuple[str, ...]
    float_layers: tuple[FloatLayer, ...]
    equalized: bool


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
    return or_refusal(_Work(content, calibration, accuracy_percent, max_loss_points, threads, progress).twin)


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

    def twin(self) -> Twin | Refusal:
        if not np.isfinite(self._wanted).all():
            raise NotQuantizableError("its answers to the calibration samples are not finite")
        found = choose_float_layers(self, most=self._most, progress=self._progress)
        if isinstance(found, Refusal):
            return found
        made = self._quantized(found.names)
        return Twin(
            content=made,
            loss_points=found.loss_points,
            int8_layers=quantized_layers(made, self.layers()),
            float_layers=found.float_layers,
            equalized=self._form.is_equalized,
        )

    def layers(self) -> tuple[str, ...]:
        return layers_of(self._form.model)

    def weighted(self) -> frozenset[str]:
        return weighted_layers(self._form.model)

    def residual(self, float_layers: Sequence[str]) -> float:
        return self._residual(self._quantized(float_layers))

    def loss_points(self, float_layers: Sequence[str]) -> float:
        return self._float_accuracy - self._accuracy(self._quantized(float_layers))

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
        samples = self._calibration[:RANKING_SAMPLES]
        return residual(outputs_of(made, samples, threads=self._threads), self._wanted)

    @cached_property
    def _wanted(self) -> Outputs:
        return outputs_of(self._content, self._calibration[:RANKING_SAMPLES], threads=self._threads)

    @cached_property
    def _float_accuracy(self) -> float:
        return self._accuracy(self._content)
