"""The proof that spatial pruning changed nothing: float64 to rounding, float32 within the net's own rounding."""

from __future__ import annotations

import torch

from edgefolio.errors import EdgefolioError
from edgefolio.manifest import ExactnessProof
from edgefolio_pruner.export import flat_outputs

#: Largest difference in float64, in units of the largest logit.
FLOAT64_RELATIVE_BOUND = 1e-9
#: Largest difference in float32: this, or four times what float32 costs the sparse model itself.
FLOAT32_ABSOLUTE_BOUND = 1e-4
FLOAT32_FACTOR = 4.0
_BATCH = 64


class NotExactError(EdgefolioError):
    """Spatial pruning changed a model's outputs: a fault of this program, and the model is not published."""


def prove_exactness(
    *,
    name: str,
    sparse64: torch.nn.Module,
    pruned64: torch.nn.Module,
    sparse32: torch.nn.Module,
    pruned32: torch.nn.Module,
    samples: torch.Tensor,
) -> ExactnessProof:
    """Compare the pruned module with its sparse parent on float32 ``samples`` [N, ...], in both precisions.

    Raises :class:`NotExactError` if a bound is broken or an output is not finite.
    """
    largest = difference64 = difference32 = rounding = 0.0
    with torch.no_grad():
        for batch in torch.split(samples, _BATCH):
            expected64 = _outputs(sparse64, batch.double())
            expected32 = _outputs(sparse32, batch)
            difference64 = max(difference64, _distance(expected64, _outputs(pruned64, batch.double())))
            difference32 = max(difference32, _distance(expected32, _outputs(pruned32, batch)))
            rounding = max(rounding, _distance(expected64, [output.double() for output in expected32]))
            largest = max([largest, *(float(output.abs().max()) for output in expected64)])
    relative = difference64 / largest if largest > 0 else difference64
    bound = max(FLOAT32_ABSOLUTE_BOUND, FLOAT32_FACTOR * rounding)
    # Written so that a NaN breaks the bound.
    if not (relative <= FLOAT64_RELATIVE_BOUND and difference32 <= bound):
        raise NotExactError(
            f"Spatial pruning changed the outputs of {name!r}: float64 by {relative:.3g} of the largest logit (allowed "
            f"{FLOAT64_RELATIVE_BOUND:g}), float32 by {difference32:.3g} (allowed {bound:.3g}). Nothing is published. "
            "Please report it with the architecture."
        )
    return ExactnessProof(
        float64_relative_difference=relative, float32_absolute_difference=difference32, float32_bound=bound
    )


def _outputs(module: torch.nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    return flat_outputs(module(batch))


def _distance(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    if [output.shape for output in one] != [output.shape for output in other]:
        return float("nan")
    distances = [float((first - second).abs().max()) for first, second in zip(one, other, strict=True)]
    return float("nan") if any(distance != distance for distance in distances) else max(distances)
