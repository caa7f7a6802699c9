"""A file with a fixed batch of one, made into a network with a free batch.

Such a file names sizes with a one in place of the batch. The network runs once on sizes alone, with a prime number of
samples: an axis that it divides is that of the batch, and each constant size is mended where it meets one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from edgefolio.errors import UserError
from edgefolio_pruner.onnx_source.graph import Node
from edgefolio_pruner.onnx_source.network import OnnxNetwork, Step, run_step
from edgefolio_pruner.onnx_source.operators.arranging import REPEATED, target_sizes
from edgefolio_pruner.onnx_source.operators.operator import Value, axes_of

__all__ = ["freed"]

_SAMPLES = 7919
_REMEDY = "Export it with a free batch: dynamic_shapes (or dynamic_axes) of torch.onnx.export for axis 0."


def freed(network: OnnxNetwork) -> OnnxNetwork:
    """``network`` with a free batch; it is changed. Raises :class:`UserError` where an operator fixes the batch."""
    sizes = network.file_input.sizes
    if sizes is None or any(size is None for size in sizes[1:]):
        raise UserError("its batch is fixed at 1, and other sizes are free.", field="model", remedy=_REMEDY)
    mending = _Mending(network)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        samples = torch.empty(_SAMPLES, *[int(size) for size in sizes[1:] if size is not None])
        found = network.run(samples, mending.watch)
    for name, output in found.items() if isinstance(found, dict) else [("", found)]:
        if output.ndim == 0 or output.shape[0] != _SAMPLES:
            what = f"its output {name!r}" if name else "its output"
            raise UserError(f"{what} has no batch on the first axis.", field="model", remedy=_REMEDY)
    return network.with_steps(mending.steps)


class _Mending:
    """The steps so far, mended."""

    def __init__(self, network: OnnxNetwork) -> None:
        self.steps: list[Step] = []
        self._network = network
        self._constants = frozenset(network.known())
        #: Of values whose batch lies behind other numbers on one axis: how many of these there are.
        self._inner: dict[str, int] = {}

    def watch(self, step: Step, given: Sequence[Value | None]) -> tuple[Value, ...]:
        """Run ``step`` as it is mended."""
        mended, inner = self._mended(step, given)
        try:
            found = run_step(mended, self._network.layer_of(mended), given[: len(mended.inputs)])
        except UserError:
            raise
        except Exception as error:  # sizes that do not fit
            raise _fixes(step.node) from error
        _require_batch(step.node, given, found)
        self._inner.update(dict.fromkeys(step.node.outputs, inner))
        self.steps.append(mended)
        return found

    def _mended(self, step: Step, given: Sequence[Value | None]) -> tuple[Step, int]:
        inner = max((self._inner.get(name, 1) for name in step.inputs), default=1)
        node = step.node
        if node.operator == "Concat":
            return _mended_concat(step, given), inner
        if node.operator == "Squeeze" and _takes_batch(step, given):
            raise _fixes(node)
        axis = _batch_axis(given[0]) if node.operator == "Reshape" and isinstance(given[0], torch.Tensor) else None
        if axis is None:
            return step, inner
        if len(step.inputs) > 1 and step.inputs[1] not in self._constants:
            return step, 1
        sizes, inner = _mended_sizes(node, given, axis, inner)
        attributes = {**node.attributes, "shape": sizes, "allowzero": 1}
        return replace(step, node=replace(node, attributes=attributes), inputs=step.inputs[:1]), inner


def _mended_sizes(node: Node, given: Sequence[Value | None], axis: int, inner: int) -> tuple[tuple[int, ...], int]:
    """The sizes with the batch in its place, and how many numbers then lie before it on its axis."""
    value = given[0]
    assert isinstance(value, torch.Tensor)
    source = [size // _SAMPLES if place == axis else size for place, size in enumerate(value.shape)]
    wanted = target_sizes(node, source, given[1] if len(given) > 1 else None)
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        wanted = [math.prod(source) // max(1, rest) if size == -1 else size for size in wanted]
    # The batch keeps its place among the numbers before and behind it.
    before = math.prod(source[:axis]) * inner
    borders = [place for place in range(len(wanted) + 1) if math.prod(wanted[:place]) == before]
    if not borders or math.prod(wanted) != math.prod(source):
        raise _fixes(node)
    chosen = next((place for place in borders if place < len(wanted) and wanted[place] == 1), borders[-1])
    held = 1
    alone = chosen < len(wanted) and wanted[chosen] == 1
    # Features on the last axis stay what they are: the batch goes behind the numbers of the axis before.
    if not alone and chosen > 0 and chosen >= len(wanted) - 1 and axis < len(source) - 1:
        chosen -= 1
        held = wanted[chosen]
    if chosen >= len(wanted):
        raise _fixes(node)
    return tuple(-1 if place == chosen else size for place, size in enumerate(wanted)), held


def _mended_concat(step: Step, given: Sequence[Value | None]) -> Step:
    """Constants that stand beside values of the samples are repeated along the batch."""
    axes = [_batch_axis(value) if isinstance(value, torch.Tensor) else None for value in given]
    known = [axis for axis in axes if axis is not None]
    if not known or len(known) == len(axes):
        return step
    lacking = [place for place, axis in enumerate(axes) if axis is None]
    values: list[Any] = [given[place] for place in lacking]
    if any(value.shape[known[0]] != 1 for value in values):
        raise _fixes(step.node)
    repeated = (known[0], axes.index(known[0]), tuple(lacking))
    return replace(step, node=replace(step.node, attributes={**step.node.attributes, REPEATED: repeated}))


def _takes_batch(step: Step, given: Sequence[Value | None]) -> bool:
    value = given[0]
    axes = axes_of(step.node, given[1] if len(given) > 1 else None)
    if not isinstance(value, torch.Tensor):
        return False
    # Without axes, all of size one: the batch is one of them.
    return axes is None or any(axis % value.ndim == _batch_axis(value) for axis in axes)


def _batch_axis(value: torch.Tensor) -> int | None:
    return next((axis for axis, size in enumerate(value.shape) if size and size % _SAMPLES == 0), None)


def _require_batch(node: Node, given: Sequence[Value | None], found: Sequence[Value]) -> None:
    if not any(isinstance(value, torch.Tensor) and _batch_axis(value) is not None for value in given):
        return
    for value in found:
        if isinstance(value, torch.Tensor) and sum(size % _SAMPLES == 0 for size in value.shape if size) != 1:
            raise _fixes(node)


def _fixes(node: Node) -> UserError:
    return node.refused("holds only for the batch of 1 that the file is fixed at", remedy=_REMEDY)
