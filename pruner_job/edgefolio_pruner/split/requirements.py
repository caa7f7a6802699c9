"""What a model and its samples must be, so that a split can be planned."""

from __future__ import annotations

import torch

from edgefolio.errors import UserError
from edgefolio_pruner.spatial.graph.capture import CapturedModel

__all__ = ["LEAST_SAMPLES", "require_possible"]

LEAST_SAMPLES = 64


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
