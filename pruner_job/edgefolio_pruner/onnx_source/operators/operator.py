"""An entry of the table of operators, and what its functions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edgefolio_pruner.onnx_source.graph import Array, Node, is_scalar

__all__ = ["Operator", "Value", "axes_of", "integers", "layered", "number", "plain", "tensor_of"]

#: A tensor of the samples, or what is known without them: constants, and sizes as integers (of torch where symbolic).
Value = torch.Tensor | Array
Run = Callable[..., Any]

_COMPUTED = "Export it with constant weights and settings (torch.onnx.export with do_constant_folding)."


def _refuse(node: Node, *_: Any) -> Any:
    raise node.refused("needs weights that are constants", remedy=_COMPUTED)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """How a node runs: ``run`` on tensors, ``host`` where all that it reads is known without samples.

    ``layer`` makes the layer of torch from the constants among the inputs (``None`` for those that are none), or
    nothing where the node is no such layer; ``weights`` are the inputs that the layer then holds; ``with_layer`` runs.
    """

    run: Run = _refuse
    host: Run | None = None
    layer: Callable[[Node, Sequence[Array | None]], nn.Module | None] | None = None
    weights: tuple[int, ...] = ()
    with_layer: Run = _refuse
    settings: bool = False
    """Whether floating constants among the inputs are settings, and no operands."""


def plain(run: Run, host: Run | None = None) -> Operator:
    """An operator without weights."""
    return Operator(run=run, host=host)


def _call(_node: Node, layer: nn.Module, value: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = layer(value)
    return result


def layered(
    layer: Callable[[Node, Sequence[Array | None]], nn.Module | None],
    weights: tuple[int, ...],
    *,
    with_layer: Run = _call,
    run: Run = _refuse,
) -> Operator:
    """An operator whose ``weights`` make a layer."""
    return Operator(run=run, layer=layer, weights=weights, with_layer=with_layer)


def integers(node: Node, value: Value | None, what: str) -> list[Any]:
    """The integers in ``value``, plain or symbolic. Raises a refusal if they depend on samples."""
    if not isinstance(value, np.ndarray):
        raise node.refused(f"computes its {what} from the samples", remedy=_COMPUTED)
    found: list[Any] = value.reshape(-1).tolist()
    return found


def axes_of(node: Node, value: Value | None, *, key: str = "axes") -> list[int] | None:
    """Axes from the attribute ``key``, as of old, or from an input; ``None`` where neither is given."""
    if key in node.attributes:
        return [int(axis) for axis in node.attributes[key]]
    return None if value is None else [int(axis) for axis in integers(node, value, key)]


def number(value: Array) -> Any:
    """The one number in ``value`` as a plain one; a whole float exponent or factor stays a float."""
    return value.reshape(-1).tolist()[0]


def tensor_of(value: Value, like: torch.Tensor) -> torch.Tensor:
    """``value`` as a tensor; floating numbers in the type of ``like``."""
    if isinstance(value, torch.Tensor):
        return value
    kind = like.dtype if value.dtype.kind == "f" and like.is_floating_point() else None
    if value.dtype == object:
        return torch.stack([torch.as_tensor(one) for one in value.reshape(-1).tolist()]).reshape(value.shape)
    return torch.tensor(value.tolist() if is_scalar(value) else np.ascontiguousarray(value), dtype=kind)
