"""Outputs of a network: their names and shapes, and whether they are what the task wants."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.data.bundle import INPUT_NAME
from edgefolio_pruner.export import evaluating, flat_outputs

_FIELD = "spec.source.architecture"
#: Samples by which logits and probabilities are told apart.
_LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Names and shapes (without the batch) of all outputs, and where the first one says yes."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    threshold: float


def look_at_outputs(module: nn.Module, data: DataBundle, *, field: str = _FIELD) -> Outputs:
    """Run ``module`` on a few samples. Raises :class:`UserError` for ``field`` unless it does what the task wants."""
    shape = data.shown_shape
    require_inputs(module, len(data.input_names), field=field)
    count = min(_LOOKED_AT, data.train.samples)
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in data.train.inputs(0, count))
    try:
        with torch.inference_mode(), evaluating(module):
            outputs = module(*inputs)
    except Exception as error:  # a module may raise anything for an unexpected shape
        raise UserError(
            f"the network refuses samples of the shape {shape} ({' '.join(str(error).split())[:200]}).",
            field=field,
            value=shape,
            remedy="Give the architecture the option for the channels or the image size, or set data.imageSize.",
        ) from error
    leaves = flat_outputs(outputs)
    if not leaves or any(leaf.ndim == 0 or len(leaf) != count or not leaf.is_floating_point() for leaf in leaves):
        raise UserError(
            f"the network gives {_shown(outputs, leaves)} for {count} samples, not floating tensors with one row for "
            f"each sample.",
            field=field,
            value=shape,
            remedy="Return a tensor, or a tuple or dict of tensors, with the samples on axis 0.",
        )
    _CHECKS[data.task](leaves[0], data, field)
    low, high = float(leaves[0].min()), float(leaves[0].max())
    return Outputs(
        names=output_names(outputs, len(leaves), taken=data.input_names),
        shapes=tuple(tuple(leaf.shape[1:]) for leaf in leaves),
        # Written so that a NaN is no probability; it is found elsewhere.
        threshold=0.5 if low >= 0 and high <= 1 and high > low else 0.0,
    )


def input_names(module: nn.Module, count: int) -> tuple[str, ...]:
    """Names of inputs that have none: ``input``; of several those of the arguments of ``module``."""
    if count == 1:
        return (INPUT_NAME,)
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = tuple(one.name for one in parameters if one.kind in kinds)[:count]
    return names if len(names) == count else tuple(f"{INPUT_NAME}_{number}" for number in range(count))


def require_inputs(module: nn.Module, given: int, *, field: str) -> None:
    """Raise :class:`UserError` for ``field`` if ``module`` needs another number of inputs, or keywords."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = [one.name for one in parameters if one.kind not in kinds]
    needed = [one.name for one in parameters if one.default is inspect.Parameter.empty and one.kind not in kinds]
    most = given if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters) else len(taken)
    if len(needed) <= given <= most:
        return
    names = needed if len(needed) > given else taken
    raise UserError(
        f"the network takes {len(names)} {'input' if len(names) == 1 else 'inputs'} ({', '.join(names[:8])}), and the "
        f"data has {given}.",
        field=field,
        value=type(module).__name__,
        remedy=f"Set data.inputs: [{', '.join(names[:16])}], arrays of these names in an .npz file."
        if len(names) > 1
        else "Leave data.inputs out.",
    )


def output_names(outputs: Any, count: int, *, taken: Sequence[str] = (INPUT_NAME,)) -> tuple[str, ...]:
    """Names in the file: the keys of a dict, else ``output``, or ``output_0`` and so on; ``taken`` are the inputs'."""
    if isinstance(outputs, dict) and len(outputs) == count:
        names = tuple(str(name) for name in outputs)
        if all(name.isidentifier() and len(name) < 64 for name in names) and not {*taken} & {*names}:
            return names
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def _classification(output: torch.Tensor, data: DataBundle, field: str) -> None:
    classes = len(data.class_names)
    if output.ndim != 2:
        raise _wrong(
            output, "one vector of logits per sample", "Name a network that classifies, or set data.task.", field
        )
    if output.shape[1] == 1 and classes == 2:
        raise UserError(
            "the network gives one logit for two classes.",
            field=f"{field}.options",
            value=1,
            remedy="Set data.task: MultiLabel, which takes one logit for each label, or give the network two outputs.",
        )
    if output.shape[1] < classes:
        raise UserError(
            f"labels lie outside the classes: the network gives {output.shape[1]} logits, "
            f"the data has {classes} classes.",
            field=f"{field}.options",
            value=output.shape[1],
            remedy=f"Set num_classes to {classes}.",
        )


def _multi_label(output: torch.Tensor, data: DataBundle, field: str) -> None:
    labels = int(data.train.labels.shape[1]) if data.has_labels else None
    if output.ndim != 2 or (labels is not None and output.shape[1] != labels):
        raise _wrong(
            output, f"{labels or 'some'} logits per sample, one for each label", "Match labels and outputs.", field
        )


def _regression(output: torch.Tensor, data: DataBundle, field: str) -> None:
    targets = tuple(data.train.labels.shape[1:])
    # One number may stand with or without an axis of its own.
    if data.has_labels and _squeezed(tuple(output.shape[1:])) != _squeezed(targets):
        wanted = "x".join(map(str, targets)) or "one number"
        raise _wrong(output, f"what the targets are, {wanted} per sample", "Match targets and outputs.", field)


def _segmentation(output: torch.Tensor, data: DataBundle, field: str) -> None:
    classes = len(data.class_names)
    if output.ndim != 4:
        raise _wrong(output, "one map per class, [N, classes, H, W]", "Return logits for each pixel.", field)
    if data.has_labels and output.shape[2:] != data.train.labels.shape[1:]:
        wanted = "x".join(str(size) for size in data.train.labels.shape[1:])
        raise _wrong(output, f"maps of the size of the masks, {wanted}", "Scale the masks, or the outputs.", field)
    if output.shape[1] < classes and not (output.shape[1] == 1 and classes <= 2):
        raise UserError(
            f"labels lie outside the classes: the network gives {output.shape[1]} maps, the masks have {classes} "
            "classes.",
            field=f"{field}.options",
            value=output.shape[1],
            remedy=f"Give it {classes} outputs, and mark pixels that do not count with 255 (uint8) or -1.",
        )


def _custom(output: torch.Tensor, data: DataBundle, field: str) -> None:
    del output, data, field


_CHECKS = {
    "Classification": _classification,
    "MultiLabel": _multi_label,
    "Regression": _regression,
    "Segmentation": _segmentation,
    "Custom": _custom,
}


def _wrong(output: torch.Tensor, wanted: str, remedy: str, field: str) -> UserError:
    found = "x".join(str(size) for size in output.shape[1:]) or "one number"
    return UserError(f"the network's first output is {found} per sample, not {wanted}.", field=field, remedy=remedy)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return () if shape == (1,) else shape


def _shown(outputs: Any, leaves: list[torch.Tensor]) -> str:
    if not leaves:
        return f"a {type(outputs).__name__} without tensors"
    return ", ".join("x".join(str(size) for size in leaf.shape) or "one number" for leaf in leaves[:4])
