"""Ranges of activations on calibration samples."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
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
_BATCH = 32
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
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    with tempfile.TemporaryDirectory(prefix="edgefolio-quantize-") as folder:
        path, augmented = Path(folder) / "model.onnx", Path(folder) / "augmented.onnx"
        # The calibrator looks tensors up by the shapes that inference stores in the file.
        onnx.save(onnx.shape_inference.infer_shapes(copy.deepcopy(model)), path)
        calibrator = MinMaxCalibrater(path, augmented_model_path=str(augmented), per_channel=True)
        try:
            calibrator.augment_graph()
        except (ValueError, RuntimeError) as error:  # a value without a type, an operator it cannot place
            raise NotQuantizableError(f"the calibrator cannot look into it ({one_line(error)})") from error
        # Its own session would take every core.
        calibrator.infer_session = open_session(augmented, threads=threads)
        calibrator.collect_data(_Batches(model.graph.input[0].name, samples))
        found = calibrator.compute_data()
    return Ranges(
        lowest={name: np.atleast_1d(data.lowest) for name, data in found.items()},
        highest={name: np.atleast_1d(data.highest) for name, data in found.items()},
    )


class _Batches:
    """The samples as the calibrator reads them."""

    def __init__(self, name: str, samples: Samples) -> None:
        self._parts: Iterator[dict[str, Any]] = iter(
            [{name: samples[start : start + _BATCH]} for start in range(0, len(samples), _BATCH)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._parts, None)
