"""ONNX Runtime's static quantizer alone, as its documentation shows: pre-processed, QDQ, per channel, all layers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BATCH = 32


def quantize(source: Path, target: Path, samples: npt.NDArray[np.float32]) -> None:
    """Write the int8 form of the float file ``source`` to ``target``; ranges from ``samples``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The samples in batches."""

        def __init__(self) -> None:
            self._parts: Iterator[dict[str, Any]] = iter(
                [{"input": samples[start : start + _BATCH]} for start in range(0, len(samples), _BATCH)]
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._parts, None)

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory(prefix="edgefolio-variants-") as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(source, prepared)
            quantize_static(
                prepared,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            )
    finally:
        logging.disable(before)
