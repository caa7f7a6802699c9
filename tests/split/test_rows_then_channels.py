"""Rows until a layer, then channels: the shards answer as the masked net does, wherever the cut is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from divided_nets import any_ownership, captured_net, difference
from generated_nets import samples
from torch import nn

from edgefolio_pruner.spatial import CapturedModel, capture
from edgefolio_pruner.split.channels.ownership import masked
from edgefolio_pruner.split.cutting import Cut, cuts_of
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.making import MadeSplit, make_split
from edgefolio_pruner.split.rows.plan import plan_rows
from edgefolio_pruner.split.shards.ranges import measure_ranges, measure_row_ranges
from edgefolio_split.executor import SplitExecutor


def made(
    cut: Cut, captured: CapturedModel, keep: float, *, fuse: bool = False, quantized: bool = False
) -> tuple[MadeSplit, CapturedModel]:
    """A split with owners by chance, and the masked net that it must equal."""
    divided = divide(cut.behind)
    ownership = any_ownership(divided, (50, 50), 5, keep)
    state = masked(divided, ownership, dict(cut.behind.parameters))
    rows = plan_rows(cut.before, (50, 50), first_number=len(divided.points))
    fused = rows.halos if fuse else ()
    ranges = None
    if quantized:
        inputs = samples(number=64)
        with torch.no_grad():
            boundary = cut.before.graph_module(inputs)
        ranges = {
            **measure_ranges(divide(cut.behind.with_state(state)), [boundary]),
            **measure_row_ranges(rows.program.module, rows.points.values(), [inputs]),
        }
    split = make_split(cut.behind, ownership, state=state, shares=(50, 50), before=cut, fused=fused, ranges=ranges)
    return split, captured.with_state({**captured.parameters, **state})


def answered(split: MadeSplit, inputs: torch.Tensor) -> np.ndarray:
    answer = SplitExecutor(split.plan, lambda name: split.files[name]).run(inputs.numpy())
    counted = [sum(counts[rank] for counts in answer.bytes_in.values()) for rank in range(2)]
    assert counted == [len(inputs) * split.plan.bytes_into(rank) for rank in range(2)]
    return answer.outputs[0]


def test_both_parts_of_every_cut_are_the_network() -> None:
    captured, inputs = captured_net("residual", "concatenation", "grouped"), samples(number=4)
    cuts = cuts_of(captured)
    assert [cut.layers for cut in cuts] == sorted({cut.layers for cut in cuts})
    # A skip goes around every layer of a block, which is cut at its ends alone; branches are cut where they join.
    assert [cut.until for cut in cuts] == ["0.0", "2.second.0", "3.right.0", "3.join.0", "4.up.0"]
    for cut in cuts:
        with torch.no_grad():
            found = cut.behind.graph_module(cut.before.graph_module(inputs))
            assert torch.equal(found, captured.graph_module(inputs))
        assert not set(cut.before.parameters) & set(cut.behind.parameters)
        assert cut.before.parameters.keys() | cut.behind.parameters.keys() == captured.parameters.keys()


@pytest.mark.parametrize(("place", "keep", "fuse"), [(0, 1.0, False), (1, 0.5, True), (2, 0.0, False)])
def test_shards_equal_the_masked_net(place: int, keep: float, fuse: bool) -> None:
    captured, inputs = captured_net("residual", "concatenation"), samples(number=4)
    cut = cuts_of(captured)[place]
    split, net = made(cut, captured, keep, fuse=fuse)
    outputs = answered(split, inputs)
    assert difference(outputs, net.graph_module, inputs) < 1e-4
    if keep == 1.0:
        assert difference(outputs, captured.graph_module, inputs) < 1e-5
    assert (split.plan.layout, split.plan.rows_until) == ("RowsThenChannels", cut.until)
    halos = [exchange for exchange in split.plan.exchanges if exchange.kind == "send" and exchange.depth == 1]
    assert bool(halos) or fuse or place == 0


def test_a_wire_of_bytes_has_a_range_for_each_channel_of_the_rows() -> None:
    captured, inputs = captured_net("residual", "concatenation"), samples(number=4)
    cut = cuts_of(captured)[1]
    split, net = made(cut, captured, 1.0, quantized=True)
    assert split.plan.wire == "UInt8"
    # 255 levels over the range of each channel, at a few exchanges.
    assert 0 < difference(answered(split, inputs), net.graph_module, inputs) < 0.1


class Flattened(nn.Module):
    """A batch whose size is read in front of a cut, and used behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(128, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        number = inputs.shape[0]
        hidden = torch.relu(self.second(torch.relu(self.first(inputs))))
        return self.last(hidden.reshape(number, -1))


def test_the_size_of_the_batch_is_known_behind_a_cut() -> None:
    torch.manual_seed(0)
    inputs = samples(number=3)
    captured = capture(Flattened().eval(), (inputs[:2],))
    cuts = cuts_of(captured)
    assert [cut.until for cut in cuts] == ["first", "second"]
    split, net = made(cuts[0], captured, 1.0)
    assert difference(answered(split, inputs), net.graph_module, inputs) < 1e-5
