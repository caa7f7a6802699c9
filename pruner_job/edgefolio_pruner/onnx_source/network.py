"""Network of torch that runs an ONNX graph, node by node.

A node with weights is a layer of torch (a convolution, a linear layer, a norm); any other is a call of torch. Sizes are
computed with plain integers, so that torch.export sees the layers and calls alone, and the batch stays free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edgefolio_pruner.onnx_source.graph import Array, Input, Node
from edgefolio_pruner.onnx_source.operators.operator import Operator, Value

__all__ = ["OnnxNetwork", "Step", "Watch", "run_step"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node, ready to run: ``layer`` is the path of its layer, ``inputs`` those that are no weights of it.

    ``last`` are values that nothing after this step reads.
    """

    node: Node
    operator: Operator
    inputs: tuple[str, ...]
    layer: str | None = None
    last: tuple[str, ...] = ()


#: Runs a step in its own way, given what the step reads.
Watch = Callable[[Step, Sequence[Value | None]], tuple[Value, ...]]


def run_step(step: Step, layer: nn.Module | None, given: Sequence[Value | None]) -> tuple[Value, ...]:
    """The outputs of ``step`` for these inputs."""
    if layer is not None:
        found: Any = step.operator.with_layer(step.node, layer, *given)
    elif step.operator.host is not None and all(value is None or isinstance(value, np.ndarray) for value in given):
        found = step.operator.host(step.node, *given)
    else:
        found = step.operator.run(step.node, *given)
    return tuple(_settled(value) for value in found) if isinstance(found, tuple) else (_settled(found),)


def _settled(value: Value) -> Value:
    """An array of objects without symbolic sizes as one of numbers."""
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return value
    entries = value.reshape(-1).tolist()
    if not all(isinstance(entry, int | float) for entry in entries):
        return value
    return np.array(entries).reshape(value.shape)


class OnnxNetwork(nn.Module):
    """The network that ``steps`` make; several outputs come as a dict by their names in the file."""

    def __init__(
        self, *, input: Input, steps: Sequence[Step], outputs: Sequence[str], host: Mapping[str, Array]
    ) -> None:
        super().__init__()
        self.file_input = input
        self._steps = tuple(steps)
        self._outputs = tuple(outputs)
        #: Numbers and integers; floating tensors are buffers, by the names in ``file_buffers``.
        self._host = dict(host)
        self.file_buffers: dict[str, str] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order."""
        return self._steps

    def with_steps(self, steps: Sequence[Step]) -> OnnxNetwork:
        """This network with other steps, which use its layers; it is changed."""
        self._steps = tuple(steps)
        return self

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs as the file names them."""
        return self._outputs

    def known(self) -> dict[str, Value]:
        """All values that no sample changes, by their names in the file."""
        return {**self._host, **{name: self.get_buffer(path) for name, path in self.file_buffers.items()}}

    def layer_of(self, step: Step) -> nn.Module | None:
        """The layer that ``step`` runs."""
        return None if step.layer is None else self.get_submodule(step.layer)

    def forward(self, samples: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """The outputs for ``samples`` [N, ...]. Raises ``ValueError`` for sizes that the file does not take."""
        return self.run(samples)

    def run(self, samples: torch.Tensor, watch: Watch | None = None) -> torch.Tensor | dict[str, torch.Tensor]:
        """:meth:`forward`; ``watch`` sees each step with what it reads and gives, and may give something else."""
        self._require_sizes(samples)
        values = self.known()
        values[self.file_input.name] = samples
        for step in self._steps:
            given = [values[name] if name else None for name in step.inputs]
            found = watch(step, given) if watch is not None else run_step(step, self.layer_of(step), given)
            values.update(zip(step.node.outputs, found, strict=False))
            del given, found
            for name in step.last:
                values.pop(name, None)
        outputs = {name: _tensor(values[name], name) for name in self._outputs}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _require_sizes(self, samples: torch.Tensor) -> None:
        sizes = self.file_input.sizes
        if sizes is None:
            return
        fits = samples.ndim == len(sizes) and all(
            size is None or given == size for size, given in zip(sizes[1:], samples.shape[1:], strict=True)
        )
        if not fits:
            wanted = "x".join("any" if size is None else str(size) for size in sizes[1:])
            given = "x".join(str(size) for size in samples.shape[1:])
            raise ValueError(f"the ONNX file takes samples of {wanted}, not {given}")


def _tensor(value: Value, name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"the output {name!r} does not depend on the samples")
    return value
