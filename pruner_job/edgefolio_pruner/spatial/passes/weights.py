"""The weights of contractions as matrices, and which of their entries are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgefolio_pruner.spatial.graph.program import Program
from edgefolio_pruner.spatial.roles import Contraction

__all__ = ["Matrices", "Matrix"]


@dataclass(frozen=True)
class Matrix:
    """One contraction's weight, arranged as (groups, outputs per group, inputs per group, taps), in
    the type that it is held in.

    ``nonzero`` (groups, outputs, inputs): whether any tap is not zero; ``exposed``: whether any tap that reads zero
    padding is not zero. ``bias`` has shape (groups, outputs), in float64.
    """

    weight: torch.Tensor
    nonzero: NDArray[np.bool_]
    exposed: NDArray[np.bool_]
    bias: NDArray[np.float64]

    def column_sums(self, values: NDArray[np.float64], *, taps: NDArray[np.bool_] | None = None) -> Any:
        """Sum over inputs and taps of weight times ``values`` (groups, inputs), in float64: (groups, outputs)."""
        columns = np.flatnonzero(values.any(axis=0))
        if len(columns) == 0:
            return np.zeros(self.bias.shape)
        weight = self.weight[:, :, torch.from_numpy(columns)]
        if taps is not None:
            weight = weight[..., torch.from_numpy(np.flatnonzero(taps))]
        summed = weight.to(torch.float64).sum(-1)
        return torch.einsum("goi,gi->go", summed, torch.from_numpy(values[:, columns])).numpy()


class Matrices:
    """The matrices of a program's contractions, each made once."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: dict[tuple[str, str], Matrix] = {}

    def __getitem__(self, role: Contraction) -> Matrix:
        key = (str(role.weight.target), f"{role.kind} {role.groups} {role.exposed.tobytes()!r} {role.bias}")
        if key not in self._known:
            weight = role.as_matrix(self._program.held(role.weight).detach())
            entries = weight != 0
            nonzero = entries.any(-1).numpy()
            exposed = entries[..., torch.from_numpy(np.flatnonzero(role.exposed))].any(-1).numpy()
            shape = (role.groups, role.outputs_per_group)
            bias = np.zeros(shape)
            if role.bias is not None:
                bias = self._program.constant(role.bias).detach().to(torch.float64).numpy().reshape(shape)
            self._known[key] = Matrix(weight, nonzero, exposed, bias)
        return self._known[key]
