"""Second moments of many small linear maps of one shape, summed together: the groups of a grouped convolution."""

from __future__ import annotations

import torch

from edgefolio_pruner.refit.moments import Moments


class GroupedAccumulator:
    """Sums second moments of ``groups`` maps batch by batch, in float64."""

    def __init__(self, *, groups: int, columns: int, outputs: int) -> None:
        self._rows = 0
        self._input_sum = torch.zeros(groups, columns, dtype=torch.float64)
        self._target_sum = torch.zeros(groups, outputs, dtype=torch.float64)
        self._target_square = torch.zeros(groups, outputs, dtype=torch.float64)
        self._gram = torch.zeros(groups, columns, columns, dtype=torch.float64)
        self._cross = torch.zeros(groups, columns, outputs, dtype=torch.float64)

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add rows: ``inputs`` [rows, groups, d] and ``targets`` [rows, groups, o]."""
        if len(inputs) == 0:
            return
        by_group, wanted = inputs.double().transpose(0, 1), targets.double().transpose(0, 1)
        self._rows += len(inputs)
        self._input_sum += by_group.sum(1)
        self._target_sum += wanted.sum(1)
        self._target_square += wanted.square().sum(1)
        self._gram.baddbmm_(by_group.transpose(1, 2), by_group)
        self._cross.baddbmm_(by_group.transpose(1, 2), wanted)

    def moments(self) -> tuple[Moments, ...]:
        """The moments of each map so far; the Gram matrices are exactly symmetric."""
        gram = (self._gram + self._gram.transpose(1, 2)) / 2
        return tuple(
            Moments(
                rows=self._rows,
                input_sum=self._input_sum[group],
                target_sum=self._target_sum[group],
                gram=gram[group],
                cross=self._cross[group],
                target_square=self._target_square[group],
            )
            for group in range(len(gram))
        )
