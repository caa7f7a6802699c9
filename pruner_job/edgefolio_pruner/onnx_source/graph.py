"""Values of a parsed ONNX graph: nodes with plain attributes, constants as NumPy arrays, the inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefolio.errors import UserError

__all__ = ["Graph", "Input", "Node", "OperatorRefusedError"]

Array = NDArray[Any]


class OperatorRefusedError(UserError):
    """A node that no module of torch is built for; operator and node are named."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One call of an operator; an input that is left out is an empty name."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def refused(self, problem: str, *, remedy: str) -> OperatorRefusedError:
        """The error that ``problem`` of this node is; it is given its field where the file is named."""
        return OperatorRefusedError(
            f"the operator {self.operator} (node {self.name!r}) {problem}.", field="model", remedy=remedy
        )


@dataclass(frozen=True, kw_only=True)
class Input:
    """The input: its name and its sizes; ``None`` where any is taken. ``sizes`` is ``None`` where none are declared."""

    name: str
    sizes: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A whole model."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: Input
    outputs: tuple[str, ...]


def is_scalar(array: Array) -> bool:
    """Whether ``array`` holds one number."""
    return int(np.prod(array.shape, dtype=np.int64)) == 1
