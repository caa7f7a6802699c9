"""What a network wants of its input, where it brings that: mean and deviation, and the size of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from edgefolio_pruner.data.pictures import Interpolation, PictureSize

#: Where timm, and models that follow it, keep it.
_CONFIGURATIONS = ("pretrained_cfg", "default_cfg")
_CROP_SHARE = 0.875


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """``origin`` says where it was found. Each of the others is None where the model does not bring it."""

    origin: str
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    size: PictureSize | None = None


def model_input(module: Any, *, library: str, name: str) -> ModelInput | None:
    """The input of ``module`` by its own configuration (timm), or by the transforms of torchvision's weights."""
    for place in _CONFIGURATIONS:
        own = getattr(module, place, None)
        if isinstance(own, Mapping):
            found = _of_configuration(own, place)
            if found is not None:
                return found
    return _of_torchvision(name) if library == "torchvision" else None


def _of_configuration(own: Mapping[str, Any], place: str) -> ModelInput | None:
    mean, deviation = _numbers(own.get("mean")), _numbers(own.get("std"))
    if mean is None or deviation is None or len(mean) != len(deviation) or min(deviation) <= 0:
        return None
    size = own.get("test_input_size") or own.get("input_size")
    crop = size[-1] if isinstance(size, Sequence) and size and size[-1] == size[-2] else None
    share = own.get("test_crop_pct") or own.get("crop_pct") or _CROP_SHARE
    how = str(own.get("interpolation") or "bilinear").capitalize()
    return ModelInput(
        origin=f"the model's own {place}",
        mean=mean,
        deviation=deviation,
        size=_size(crop, None if crop is None else int(crop / share), how),
    )


def _of_torchvision(name: str) -> ModelInput | None:
    import torchvision

    try:
        transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    except (AttributeError, ValueError):
        return None
    mean, deviation = _numbers(getattr(transforms, "mean", None)), _numbers(getattr(transforms, "std", None))
    if mean is None or deviation is None:
        return None
    crop, shorter = (getattr(transforms, key, None) for key in ("crop_size", "resize_size"))
    how = str(getattr(getattr(transforms, "interpolation", None), "value", "bilinear")).capitalize()
    return ModelInput(
        origin="the transforms of torchvision's own weights",
        mean=mean,
        deviation=deviation,
        size=_size(crop[0], shorter[0], how) if crop and shorter else None,
    )


def _size(crop: Any, shorter: Any, interpolation: str) -> PictureSize | None:
    if not isinstance(crop, int) or not isinstance(shorter, int) or not 0 < crop <= shorter:
        return None
    known = interpolation if interpolation in get_args(Interpolation) else "Bilinear"
    return PictureSize(crop=crop, shorter=shorter, interpolation=known)  # type: ignore[arg-type]


def _numbers(values: Any) -> tuple[float, ...] | None:
    if not isinstance(values, list | tuple) or not values or not all(isinstance(one, int | float) for one in values):
        return None
    return tuple(float(one) for one in values)
