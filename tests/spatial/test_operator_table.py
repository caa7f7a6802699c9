"""The table of operators: each one that moves data holds the rewrite that it needs in its own entry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from spatial_support.nets import BOUND, after, difference, lively, shrink, silence
from torch import nn

from edgefolio_pruner.spatial import capture, compress
from edgefolio_pruner.spatial.operators.moves import unchanged
from edgefolio_pruner.spatial.operators.operator import Operator
from edgefolio_pruner.spatial.operators.pooling import SPATIAL
from edgefolio_pruner.spatial.operators.registry import MOVEMENTS, OPERATORS

aten = torch.ops.aten
#: One use of each operator with a rewrite, on a map of 8 channels of which two go.
USES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "reshape": lambda x: aten.reshape.default(x, [-1, 8, 4, 4]),
    "unflatten": lambda x: aten.unflatten.int(x, 1, [8, 1]),
    "expand": lambda x: aten.expand.default(aten.mean.dim(x, [2, 3], True), [-1, 8, 4, 4]),
    "slice": lambda x: aten.slice.Tensor(x, 1, 1, 6),
    "select": lambda x: aten.select.int(x, 1, 5),
    "index_select": lambda x: aten.index_select.default(x, 1, torch.tensor([6, 0, 3, 3])),
    "cat": lambda x: aten.cat.default([x, aten.slice.Tensor(x, 1, 2, 3)], 1),
    "pad": lambda x: aten.pad.default(x, [0, 0, 0, 0, 1, 2], "constant", 0.5),
    "constant_pad_nd": lambda x: aten.constant_pad_nd.default(x, [0, 0, 0, 0, 1, 2], 0.5),
}


class Use(nn.Module):
    """Eight channels, the operator, and a layer that reads what is left."""

    def __init__(self, use: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.use = use
        self.last = nn.Linear(use(torch.zeros(1, 8, 4, 4)).shape[1], 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.use(torch.relu(self.first(x))).flatten(2).sum(2))


def may_count_channels(name: str) -> bool:
    """Whether the operator's schema has sizes, bounds, indices or a list of tensors, and it acts on channels' axes."""
    packet = getattr(aten, name, None)
    if packet is None or name in SPATIAL:
        return False
    schema = str(getattr(packet, packet.overloads()[0])._schema)
    return any(kind in schema for kind in ("SymInt", "Tensor index", "Tensor[]"))


def test_a_rewrite_stands_in_the_entry_of_every_operator_whose_arguments_may_count_channels() -> None:
    rewritten = {name for name, operator in MOVEMENTS.items() if operator.rewrite is not unchanged}
    assert rewritten == {name for name in MOVEMENTS if may_count_channels(name)}
    assert rewritten == set(USES)
    assert all(operator.rewrite is not None for operator in MOVEMENTS.values())


@pytest.mark.parametrize("name", USES)
def test_channels_go_through_the_operator_and_not_without_its_rewrite(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = lively(Use(USES[name]))
    silence(module.first, [2, 4], bias=0.0)
    assert after(shrink(module, (3, 4, 4)))["first"] < 8
    captured = capture(module, (torch.randn(2, 3, 4, 4, dtype=torch.float64),))
    monkeypatch.setitem(OPERATORS, name, Operator(OPERATORS[name].assign, unchanged))
    with pytest.raises((RuntimeError, LookupError, AssertionError)):
        assert difference(module, compress(captured), (3, 4, 4)) <= BOUND
