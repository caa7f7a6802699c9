"""Ranges of activations on calibration samples."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgefolio.errors import UserError
from edgefolio_pruner.profiling.session import open_session

#: Ranges of fewer samples are a guess.
LEAST_SAMPLES = 32
#: Samples that the calibrator runs at once.
CALIBRATION_BATCH = 32
_FIELD = "spec.methods.quantization.calibrationSamples"

Samples = npt.NDArray[np.float32]


class NotQuantizableError(Exception):
    """Why a model has no quantized form, as a clause."""


def one_line(error: Exception) -> str:
    """What a library raised, short enough for a manifest."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def require_calibration(samples: Samples) -> None:
    """Raise :class:`UserError` if ``samples`` [N, ...] cannot calibrate anything."""
    if len(samples) < LEAST_SAMPLES:
        raise UserError(
            f"the training data has {len(samples)} samples, and quantization is calibrated on at least "
            f"{LEAST_SAMPLES}.",
            field=_FIELD,
            value=len(samples),
            remedy="Give more training samples (no labels are needed), or leave methods.quantization out.",
        )
    if not np.isfinite(samples).all():
        raise UserError(
            "the calibration samples hold NaN or infinity.",
            field=_FIELD,
            value=len(samples),
            remedy="Correct the training data.",
        )
    if not np.ptp(samples, axis=0).any():
        raise UserError(
            "the calibration samples are all the same, so they say nothing about the range of any layer.",
            field=_FIELD,
            value=len(samples),
            remedy="Give training data that looks like what the model will see.",
        )


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest value of each tensor on the calibration samples, by channel (axis 1)."""

    lowest: dict[str, npt.NDArray[np.float32]]
    highest: dict[str, npt.NDArray[np.float32]]

    def not_finite(self) -> str | None:
        """A tensor whose range is no number; ``None`` if there is none."""
        return next(
            (
                name
                for name, low in self.lowest.items()
                if not (np.isfinite(low).all() and np.isfinite(self.highest[name]).all())
            ),
            None,
        )


def activation_ranges(model: onnx.ModelProto, samples: Samples, *, threads: int) -> Ranges:
    """The ranges of all activations of ``model`` on ``samples``, by ONNX Runtime's calibrator.

    Raises :class:`NotQuantizableError`.
    """
    name = model.graph.input[0].name
    with Calibrator(model, threads=threads) as calibrator:
        for start in range(0, len(samples), CALIBRATION_BATCH):
            calibrator.add({name: samples[start : start + CALIBRATION_BATCH]})
        return calibrator.ranges()


class Calibrator:
    """The ranges of all activations of a model, batch after batch, by ONNX Runtime's calibrator.

    Raises :class:`NotQuantizableError`.
    """

    def __init__(self, model: onnx.ModelProto, *, threads: int) -> None:
        from onnxruntime.quantization.calibrate import MinMaxCalibrater

        self._folder = tempfile.TemporaryDirectory(prefix="edgefolio-quantize-")
        self._lowest: dict[str, npt.NDArray[np.float32]] = {}
        self._highest: dict[str, npt.NDArray[np.float32]] = {}
        path, augmented = Path(self._folder.name) / "model.onnx", Path(self._folder.name) / "augmented.onnx"
        # The calibrator looks tensors up by the shapes that inference stores in the file.
        onnx.save(onnx.shape_inference.infer_shapes(copy.deepcopy(model)), path)
        self._calibrator = MinMaxCalibrater(path, augmented_model_path=str(augmented), per_channel=True)
        try:
            self._calibrator.augment_graph()
        except (ValueError, RuntimeError) as error:  # a value without a type, an operator it cannot place
            self._folder.cleanup()
            raise NotQuantizableError(f"the calibrator cannot look into it ({one_line(error)})") from error
        # Its own session would take every core.
        self._calibrator.infer_session = open_session(augmented, threads=threads)

    def __enter__(self) -> Calibrator:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, inputs: dict[str, npt.NDArray[Any]]) -> None:
        """Widen the ranges to what one batch gives."""
        # It cannot merge the ranges of channels by itself.
        self._calibrator.calibrate_tensors_range = None
        self._calibrator.collect_data(_OneBatch(inputs))
        for name, data in self._calibrator.compute_data().items():
            low, high = np.atleast_1d(data.lowest), np.atleast_1d(data.highest)
            if name in self._lowest:
                # NaN stays: it tells of a model that cannot be quantized.
                low, high = np.minimum(low, self._lowest[name]), np.maximum(high, self._highest[name])
            self._lowest[name], self._highest[name] = low, high

    def ranges(self) -> Ranges:
        """The ranges of all batches so far."""
        return Ranges(lowest=dict(self._lowest), highest=dict(self._highest))


class _OneBatch:
    """One batch as the calibrator reads it."""

    def __init__(self, inputs: dict[str, npt.NDArray[Any]]) -> None:
        self._waiting: list[dict[str, npt.NDArray[Any]]] = [inputs]

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return self._waiting.pop() if self._waiting else None
