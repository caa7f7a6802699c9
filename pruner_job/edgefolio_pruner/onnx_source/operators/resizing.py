"""Resize and Upsample: nearest, linear and cubic, as torch interpolates, or place by place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgefolio_pruner.onnx_source.graph import Node
from edgefolio_pruner.onnx_source.operators import host
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value, integers

__all__ = ["OPERATORS"]

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_REMEDY = "Export it as torch.nn.functional.interpolate: nearest, or bilinear or bicubic by half pixels or corners."


def _resize(node: Node, value: torch.Tensor, *given: Value | None) -> torch.Tensor:
    scales, sizes = _asked(node, value, given)
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refused("keeps a ratio of sides", remedy=_REMEDY)
    mode, how = node.attributes.get("mode", "nearest"), _coordinates(node)
    target: dict[str, Any] = {"size": sizes} if scales is None else {"scale_factor": scales}
    if scales is not None:
        # The factors are taken as they are, not worked out again from the sizes.
        target["recompute_scale_factor"] = False
    smooth = bool(node.attributes.get("antialias", 0))
    if mode == "nearest":
        return _nearest(node, value, scales, sizes, how)
    axes = value.ndim - 2
    name = {"linear": _LINEAR.get(axes), "cubic": "bicubic" if axes == 2 else None}.get(mode)
    if name is None or how not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise node.refused(f"is {mode} by {how} in {axes} axes", remedy=_REMEDY)
    if mode == "cubic" and abs(node.attributes.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise node.refused("has another curve than torch's", remedy=_REMEDY)
    return functional.interpolate(value, **target, mode=name, align_corners=how == "align_corners", antialias=smooth)


def _coordinates(node: Node) -> str:
    if node.operator == "Upsample":
        return "asymmetric"
    usual = "half_pixel" if node.opset >= 11 else "asymmetric"
    return str(node.attributes.get("coordinate_transformation_mode", usual))


def _asked(
    node: Node, value: torch.Tensor, given: tuple[Value | None, ...]
) -> tuple[list[float] | None, list[Any] | None]:
    """Factors or sizes of the axes from 2 on."""
    inputs = [one if one is not None and 0 not in one.shape else None for one in given]
    old = node.operator == "Upsample" or node.opset < 11
    scales = node.attributes.get("scales") or (inputs[0] if old and inputs else inputs[1] if len(inputs) > 1 else None)
    sizes = inputs[2] if len(inputs) > 2 and not old else None
    named = [axis % value.ndim for axis in node.attributes.get("axes", range(value.ndim))]
    found: Any = sizes if sizes is not None else scales
    asked = integers(node, np.asarray(found) if isinstance(found, list) else found, "sizes")
    by_axis = dict(zip(named, asked, strict=True))
    rest = [by_axis.get(axis) for axis in range(value.ndim)]
    if sizes is None:
        factors = [1.0 if one is None else float(one) for one in rest]
        if factors[:2] != [1.0, 1.0]:
            raise node.refused("changes the number of samples or channels", remedy=_REMEDY)
        return factors[2:], None
    for axis in (0, 1):
        same = rest[axis] is None or rest[axis] == value.shape[axis] or (axis == 0 and rest[0] == 1)
        if not same:
            raise node.refused("changes the number of samples or channels", remedy=_REMEDY)
    return None, [value.shape[axis] if rest[axis] is None else rest[axis] for axis in range(2, value.ndim)]


def _nearest(
    node: Node, value: torch.Tensor, scales: list[float] | None, sizes: list[Any] | None, how: str
) -> torch.Tensor:
    rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
    if node.operator == "Upsample" or node.opset < 11:
        rounding = "floor"
    if how == "asymmetric":
        whole = scales is not None and all(factor in (1.0, 2.0) for factor in scales)
        # Twice the size, half a place is rounded down as well.
        if rounding == "floor" or (rounding == "round_prefer_floor" and whole):
            if sizes is not None:
                return functional.interpolate(value, size=sizes, mode="nearest")
            return functional.interpolate(value, scale_factor=scales, mode="nearest", recompute_scale_factor=False)
    for place in range(value.ndim - 2):
        axis = place + 2
        length = value.shape[axis]
        if not isinstance(length, int):
            raise node.refused(f"is nearest by {how} and {rounding} for sizes that are free", remedy=_REMEDY)
        wanted = math.floor(length * scales[place]) if scales is not None else sizes[place]  # type: ignore[index]
        host.require_small(node, [wanted])
        factor = scales[place] if scales is not None else wanted / length
        places = [_place(node, at, factor, length, wanted, how, rounding) for at in range(wanted)]
        if places != list(range(length)):
            value = value.index_select(axis, torch.tensor(places))
    return value


def _place(node: Node, at: int, factor: float, length: int, wanted: int, how: str, rounding: str) -> int:
    if how == "asymmetric":
        where = at / factor
    elif how == "align_corners":
        where = at * (length - 1) / (wanted - 1) if wanted > 1 else 0.0
    elif how == "half_pixel" or (how == "pytorch_half_pixel" and wanted > 1):
        where = (at + 0.5) / factor - 0.5
    elif how == "pytorch_half_pixel":
        where = 0.0
    else:
        raise node.refused(f"places pixels by {how}", remedy=_REMEDY)
    rounded = {
        "floor": math.floor(where),
        "ceil": math.ceil(where),
        "round_prefer_floor": math.ceil(where - 0.5),
        "round_prefer_ceil": math.floor(where + 0.5),
    }[rounding]
    return min(max(rounded, 0), length - 1)


OPERATORS: dict[str, Operator] = dict.fromkeys(("Resize", "Upsample"), Operator(run=_resize, settings=True))
