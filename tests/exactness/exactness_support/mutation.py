"""A compiler that forgets one constant: the check must notice, or it proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from edgefolio_pruner.spatial import CapturedModel, Compressed, compress, layers

_Columns = Callable[..., Any]


def compress_without_heaviest_constant(captured: CapturedModel) -> Compressed | None:
    """Compress ``captured`` but leave out one constant that a bias should have taken over; ``None`` if there is none.

    Of all folded constants it is the one that adds most to a bias.
    """
    right: _Columns = layers.folded_columns
    heaviest: tuple[float, str, tuple[int, int]] | None = None

    def weigh(plan: Any, node: Any, role: Any) -> Any:
        nonlocal heaviest
        folded = right(plan, node, role)
        values = np.where(folded, plan.constants.values[role.source].ravel()[role.columns], 0.0)
        needed = plan.needs.slots[node].reshape(role.groups, role.outputs_per_group)
        summed = plan.matrices[role].weight.double().sum(-1).numpy()
        added = np.abs(np.where(needed[:, :, None], summed, 0.0)).max(axis=1) * np.abs(values)
        place = np.unravel_index(int(added.argmax()), added.shape)
        if added[place] > 0 and (heaviest is None or added[place] > heaviest[0]):
            heaviest = (float(added[place]), node.name, (int(place[0]), int(place[1])))
        return folded

    with mock.patch.object(layers, "folded_columns", weigh):
        compress(captured)
    if heaviest is None:
        return None
    _, dropped_node, dropped_place = heaviest

    def forget(plan: Any, node: Any, role: Any) -> Any:
        folded = right(plan, node, role).copy()
        if node.name == dropped_node:
            assert folded[dropped_place]
            folded[dropped_place] = False
        return folded

    with mock.patch.object(layers, "folded_columns", forget):
        return compress(captured)
