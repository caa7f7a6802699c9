"""Quantized shards of a split: each segment as a twin is made, and one choice of the layers that stay float for all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.quantization.calibration import (
    CALIBRATION_BATCH,
    Calibrator,
    NotQuantizableError,
    Ranges,
    Samples,
)
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
from edgefolio_pruner.quantization.sensitivity import Outputs, residual
from edgefolio_pruner.quantization.twin import RANKING_SAMPLES
from edgefolio_pruner.split.making import MadeSplit
from edgefolio_split.executor import SplitExecutor

__all__ = ["QuantizedSplit", "quantize_split"]

Models = Mapping[str, onnx.ModelProto]


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedSplit:
    """A split whose shards compute on bytes, its loss against its float form in points, and its layers.

    A layer is named by its file and its node. The plan has no certificate: it has to be measured again.
    """

    made: MadeSplit
    loss_points: float
    int8_layers: tuple[str, ...]
    float_layers: tuple[FloatLayer, ...]
    equalized: bool


def quantize_split(
    made: MadeSplit,
    *,
    calibration: Samples,
    accuracy_percent: Callable[[SplitExecutor], float],
    max_loss_points: float,
    threads: int,
    progress: Progress = no_progress,
) -> QuantizedSplit | Refusal:
    """The split with quantized shards that loses at most ``max_loss_points`` of ``accuracy_percent`` against ``made``.

    The wire stays as it is, and so do its ranges. Equal arguments give equal bytes.
    """
    return or_refusal(_Work(made, calibration, accuracy_percent, max_loss_points, threads, progress).quantized)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Form:
    """Float segments that give the split's answers, and the ranges of their activations."""

    models: Models
    ranges: Mapping[str, Ranges]
    is_equalized: bool


class _Work:
    def __init__(
        self,
        made: MadeSplit,
        calibration: Samples,
        accuracy_percent: Callable[[SplitExecutor], float],
        max_loss_points: float,
        threads: int,
        progress: Progress,
    ) -> None:
        self._made, self._calibration, self._accuracy = made, calibration, accuracy_percent
        self._most, self._threads, self._progress = max_loss_points, threads, progress
        self._written: dict[tuple[bool, str, frozenset[str]], bytes] = {}

    def quantized(self) -> QuantizedSplit | Refusal:
        if not np.isfinite(self._wanted).all():
            raise NotQuantizableError("its answers to the calibration samples are not finite")
        found = choose_float_layers(self, most=self._most, progress=self._progress)
        if isinstance(found, Refusal):
            return found
        made = self._with(self._form, found.names)
        return QuantizedSplit(
            made=MadeSplit(made.plan.model_copy(update={"precision": "Int8", "certificate": None}), made.files),
            loss_points=found.loss_points,
            int8_layers=tuple(
                f"{file}: {name}"
                for file, model in self._form.models.items()
                for name in quantized_layers(made.files[file], layers_of(model))
            ),
            float_layers=found.float_layers,
            equalized=self._form.is_equalized,
        )

    def layers(self) -> tuple[str, ...]:
        return tuple(f"{file}: {name}" for file, model in self._form.models.items() for name in layers_of(model))

    def weighted(self) -> frozenset[str]:
        models = self._form.models
        return frozenset(f"{file}: {name}" for file, model in models.items() for name in weighted_layers(model))

    def residual(self, float_layers: Sequence[str]) -> float:
        return self._residual(self._with(self._form, float_layers))

    def loss_points(self, float_layers: Sequence[str]) -> float:
        return self._float_accuracy - self._accuracy(self._executor(self._with(self._form, float_layers)))

    @cached_property
    def _form(self) -> _Form:
        """The segments as they are, or equalized, whichever answers more like the float ones when all is quantized."""
        files = [segment.file for shard in self._made.plan.shards for segment in shard.segments]
        plain = self._with_ranges({file: load_float(self._made.files[file]) for file in files}, self._made)
        if not any(weighted_layers(model) for model in plain.models.values()):
            return plain
        even = {file: equalized(model, plain.ranges[file]) for file, model in plain.models.items()}
        if all(model is None for model in even.values()):
            return plain
        models = {file: plain.models[file] if model is None else model for file, model in even.items()}
        contents = {file: model.SerializeToString(deterministic=True) for file, model in models.items()}
        other = self._with_ranges(models, _with_files(self._made, contents), is_equalized=True)
        return min((plain, other), key=lambda form: self._residual(self._with(form, ())))

    def _with_ranges(self, models: Models, made: MadeSplit, *, is_equalized: bool = False) -> _Form:
        """The ranges of each segment, on what all segments of ``made`` together give it."""
        plan = made.plan
        with ExitStack() as stack:
            calibrators = {
                file: stack.enter_context(Calibrator(model, threads=self._threads))
                for file, model in models.items()
                if layers_of(model)
            }

            def watch(rank: int, number: int, inputs: dict[str, npt.NDArray[Any]], _: object) -> None:
                calibrator = calibrators.get(plan.shards[rank].segments[number].file)
                if calibrator is not None:
                    calibrator.add(inputs)

            executor = self._executor(made)
            for start in range(0, len(self._calibration), CALIBRATION_BATCH):
                executor.run(self._calibration[start : start + CALIBRATION_BATCH], watch=watch)
            ranges = {file: calibrator.ranges() for file, calibrator in calibrators.items()}
        for file, found in ranges.items():
            tensor = found.not_finite()
            if tensor is not None:
                raise NotQuantizableError(
                    f"the values of {tensor!r} of {file} on the calibration samples are not finite"
                )
        return _Form(models=models, ranges=ranges, is_equalized=is_equalized)

    def _with(self, form: _Form, float_layers: Collection[str]) -> MadeSplit:
        """The split with all layers quantized but these."""
        contents = {}
        for file, model in form.models.items():
            stay = frozenset(name for name in layers_of(model) if f"{file}: {name}" in float_layers)
            key = (form.is_equalized, file, stay)
            # What only moves, gathers or joins stays as it is.
            if file in form.ranges and key not in self._written:
                self._written[key] = quantized(model, form.ranges[file], float_layers=stay)
            contents[file] = self._written.get(key, self._made.files[file])
        return _with_files(self._made, contents)

    def _executor(self, made: MadeSplit) -> SplitExecutor:
        return SplitExecutor(made.plan, made.files.__getitem__, threads=self._threads)

    def _outputs(self, made: MadeSplit) -> Outputs:
        executor, samples = self._executor(made), self._calibration[:RANKING_SAMPLES]
        parts = [executor.run(samples[start : start + 64]).outputs[0] for start in range(0, len(samples), 64)]
        return np.concatenate(parts).astype(np.float64)

    def _residual(self, made: MadeSplit) -> float:
        return residual(self._outputs(made), self._wanted)

    @cached_property
    def _wanted(self) -> Outputs:
        return self._outputs(self._made)

    @cached_property
    def _float_accuracy(self) -> float:
        return self._accuracy(self._executor(self._made))


def _with_files(made: MadeSplit, contents: Mapping[str, bytes]) -> MadeSplit:
    """The split with other segments, and their digests in its plan."""
    shards = []
    for shard in made.plan.shards:
        segments = tuple(
            segment.model_copy(
                update={
                    "sha256": hashlib.sha256(contents[segment.file]).hexdigest(),
                    "size_bytes": len(contents[segment.file]),
                }
            )
            for segment in shard.segments
        )
        shards.append(shard.model_copy(update={"segments": segments}))
    return MadeSplit(made.plan.model_copy(update={"shards": tuple(shards)}), {**made.files, **contents})
