"""Choice of the layers that stay float: one rule for a file, and for the files of a split.

All layers are quantized if that keeps the accuracy. Else they are ranked by what quantizing each alone changes in the
answers, and the most sensitive ones stay float, as few as the accuracy allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgefolio_pruner.progress import Progress
from edgefolio_pruner.quantization.calibration import NotQuantizableError, one_line
from edgefolio_pruner.quantization.sensitivity import fewest_float_layers

__all__ = ["STAGE", "FloatChoice", "FloatLayer", "Quantizable", "Refusal", "choose_float_layers", "or_refusal"]

STAGE = "quantization"
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """A layer that stays float, and the residual of the output with this layer alone quantized."""

    name: str
    residual: float


@dataclass(frozen=True)
class Refusal:
    """Why a model has no twin, as a sentence without its end."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class FloatChoice:
    """The layers that stay float, and the loss against the float parent in points."""

    float_layers: tuple[FloatLayer, ...]
    loss_points: float

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(layer.name for layer in self.float_layers)


class Quantizable(Protocol):
    """A float model, of one file or of several, with any of its layers quantized."""

    def layers(self) -> tuple[str, ...]:
        """Names of the layers that may be quantized or stay float, in order."""

    def weighted(self) -> frozenset[str]:
        """Names of those with weights; without any of them quantized nothing is won."""

    def residual(self, float_layers: Sequence[str]) -> float:
        """How far its answers are from the float model's, with these layers float."""

    def loss_points(self, float_layers: Sequence[str]) -> float:
        """What it loses against the float model, in points of accuracy, with these layers float."""


def choose_float_layers(model: Quantizable, *, most: float, progress: Progress) -> FloatChoice | Refusal:
    """As few float layers as lose at most so many points. Raises :class:`NotQuantizableError` without any layer."""
    if not model.weighted():
        raise NotQuantizableError("it has no layer that the quantizer knows")
    losses: dict[tuple[str, ...], float] = {}
    residuals: dict[str, float] = {}

    def is_within(float_layers: tuple[str, ...]) -> bool:
        if model.weighted() <= set(float_layers):
            return False
        losses[float_layers] = model.loss_points(float_layers)
        return losses[float_layers] <= most + 1e-9

    if is_within(()):
        return FloatChoice(float_layers=(), loss_points=losses[()])
    progress(stage=STAGE, fraction=0.3, message="ranking layers")
    names = model.layers()
    for position, name in enumerate(names):
        progress(stage=STAGE, fraction=0.3 + 0.4 * position / len(names), message=f"ranking {name}")
        residuals[name] = model.residual([other for other in names if other != name])
    chosen = fewest_float_layers(_ranked(residuals), is_within)
    if chosen is None:
        return Refusal(
            f"quantized it loses {losses[()]:.2f} points, and {min(losses.values()):.2f} with its most "
            f"sensitive layers float; methods.quantization.maxAccuracyLossPoints allows {most:g}"
        )
    return FloatChoice(
        float_layers=tuple(FloatLayer(name=name, residual=residuals[name]) for name in chosen),
        loss_points=losses[chosen],
    )


def or_refusal(make: Callable[[], Made | Refusal]) -> Made | Refusal:
    """What ``make`` gives, or a refusal where quantizer or runtime cannot do it; other errors are raised."""
    try:
        return make()
    except NotQuantizableError as error:
        return Refusal(str(error))
    except Exception as error:
        # The runtime's exceptions have no common class, only a module.
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return Refusal(f"ONNX Runtime cannot run its quantized form ({one_line(error)})")


def _ranked(residuals: dict[str, float]) -> tuple[str, ...]:
    """Layers by the residual of the output where each alone is quantized, the largest first."""
    return tuple(sorted(residuals, key=lambda name: (-residuals[name], name)))
