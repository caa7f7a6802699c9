"""Hold out a part of the training data: stratified, seeded, disjoint."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgefolio_pruner.data.bundle import Labels
from edgefolio_pruner.randomness import random_bits

Indices = npt.NDArray[np.int64]


def hold_out(labels: Labels, *, percent: int, seed: int, stream: str) -> tuple[Indices, Indices]:
    """Indices that stay and indices held out, both ascending; together they are all, none is in both.

    Of every class ``percent`` of the samples are held out, rounded; a class with two or more samples gives at least one
    and keeps at least one. Equal arguments give equal parts.
    """
    bits = random_bits(np.arange(labels.shape[0]), seed=seed, stream=stream)
    held = np.zeros(labels.shape[0], dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = round(members.size * percent / 100)
        count = min(max(count, 1), members.size - 1)
        held[members[np.argsort(bits[members], kind="stable")[:count]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
