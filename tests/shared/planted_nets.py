"""Networks whose layers are block-diagonal after an unknown permutation: an owner map without traffic exists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


class PlantedNet(nn.Module):
    """Linear layers over hidden channels with planted owners; ``form`` says how values are joined."""

    def __init__(
        self,
        form: str,
        *,
        width: int = 24,
        sizes: Sequence[int] = (12, 12),
        density: float = 1.0,
        noise: float = 0.0,
        noise_density: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = np.random.default_rng(seed)
        self.form = form
        blocks = np.repeat(np.arange(len(sizes)), sizes)
        assert len(blocks) == width
        #: The planted owner of each hidden channel of each layer.
        self.owners = [generator.permutation(blocks) for _ in range(4)]
        if form == "residual":
            self.owners[2] = self.owners[0]
        self.first = nn.Linear(10, width)
        self.second, self.third = nn.Linear(width, width), nn.Linear(width, width)
        self.fourth = nn.Linear(2 * width if form == "concatenation" else width, width)
        self.last = nn.Linear(width, 5)
        torch.manual_seed(seed)
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight, std=0.5)
        columns = [self.owners[0], self.owners[1], self.owners[2]]
        if form == "concatenation":
            columns[2] = np.concatenate([self.owners[1], self.owners[2]])
        for layer, rows, read in zip(
            (self.second, self.third, self.fourth),
            (self.owners[1], self.owners[2], self.owners[3]),
            columns,
            strict=True,
        ):
            shape = (len(rows), len(read))
            inside = rows[:, None] == read[None]
            weight = generator.normal(size=shape) * (generator.random(shape) < density) * inside
            other = noise * generator.normal(size=shape) * (generator.random(shape) < noise_density) * ~inside
            scale = np.sqrt(density * inside.sum(1).mean())
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy((weight + other) / scale))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.first(inputs))
        second = torch.relu(self.second(first))
        third = self.third(second)
        if self.form == "residual":
            third = third + first
        third = torch.relu(third)
        if self.form == "concatenation":
            third = torch.cat([second, third], 1)
        return self.last(torch.relu(self.fourth(third)))

    def planted(self, families: Sequence[object], units: int) -> np.ndarray:
        """The planted owner of each unit, by the name of its family's first layer."""
        owner = np.zeros(units, dtype=np.int64)
        names = {"first": 0, "second": 1, "third": 2, "fourth": 3}
        for family in families:
            owner[family.units] = self.owners[names[family.name]]  # type: ignore[attr-defined]
        return owner


def planted_samples(number: int = 1024) -> torch.Tensor:
    return torch.randn(number, 10, generator=torch.Generator().manual_seed(5))
