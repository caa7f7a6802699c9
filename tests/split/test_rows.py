"""A division by rows loses nothing, whatever convolutions and pools read; a fault in a halo or a pad is seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from generated_nets import net_of, samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgefolio.errors import UserError
from edgefolio_pruner.spatial import CapturedModel, capture
from edgefolio_pruner.split.row_making import make_row_split, row_module
from edgefolio_pruner.split.rows import bands
from edgefolio_pruner.split.rows.bands import Rows, Window
from edgefolio_pruner.split.rows.plan import RowPlan, plan_rows
from edgefolio_pruner.split.shards.wire import slots_between
from edgefolio_split.executor import SplitExecutor

SHARES = [(50, 50), (50, 30, 20), (25, 25, 25, 25), (70, 30)]


class Windows(nn.Module):
    """Convolutions and pools with these settings, a sum, and a mean before the last layer."""

    def __init__(self, *, stride: int, kernel: int, padding: int, dilation: int, ceil: bool, counts: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, kernel, stride=stride, padding=padding, dilation=dilation)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil)
        self.mean = nn.AvgPool2d(3, 2, 1, ceil_mode=ceil, count_include_pad=counts)
        self.last = nn.Linear(12, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(inputs)))
        hidden = hidden + self.second(hidden)
        joined = torch.cat([self.pool(hidden), self.mean(hidden)], 1)
        return self.last(joined.mean((2, 3)))


def in_torch(plan: RowPlan, inputs: torch.Tensor) -> list[torch.Tensor]:
    """All workers' bands in torch, exchanges done by hand: quick, for many nets."""
    workers = range(len(plan.shares))
    modules = [row_module(plan, worker) for worker in workers]
    held = [{} for _ in workers]
    for _ in range(1 + max(plan.depths.values(), default=0)):
        outputs = []
        for worker in workers:
            joints = modules[worker].joints
            given = [
                held[worker].get(joint.point.name, torch.full((len(inputs), *shape), float("nan")))
                for joint, shape in zip(joints, modules[worker].shapes, strict=True)
            ]
            with torch.no_grad():
                outputs.append(modules[worker].module(inputs, *given))
        for index, joint in enumerate(modules[0].joints):
            point = joint.point
            owners = plan.traffic.owners(point)
            whole = torch.cat([outputs[worker][index] for worker in workers], 2)
            for worker in workers:
                kept = np.flatnonzero(plan.traffic.keeps(point, worker))
                sent = sum(
                    len(slots_between(plan.traffic, point, other, worker)) for other in workers if other != worker
                )
                assert sent == len(kept) - int((owners == worker).sum())
                held[worker][point.name] = whole[:, :, torch.from_numpy(kept)]
    return [outputs[worker][-1] for worker in workers]


def largest_difference(captured: CapturedModel, plan: RowPlan, inputs: torch.Tensor) -> float:
    results = in_torch(plan, inputs)
    with torch.no_grad():
        wanted = captured.graph_module(inputs)
    last = next(iter(reversed(plan.program.module.graph.nodes))).all_input_nodes[0]
    found = sum(results) if plan.states[last] == "part" else results[0]
    return float((found - wanted).abs().max() / wanted.abs().max())


def windows(**changes: object) -> Windows:
    torch.manual_seed(0)
    given = {"stride": 1, "kernel": 3, "padding": 1, "dilation": 1, "ceil": False, "counts": True, **changes}
    net = Windows(**given)  # type: ignore[arg-type]
    nn.init.uniform_(net.norm.running_mean, -0.3, 0.3)
    return net.eval()


@given(
    stride=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 3),
    height=st.integers(36, 48),
    ceil=st.booleans(),
    counts=st.booleans(),
    shares=st.sampled_from(SHARES),
    fused=st.integers(0, 7),
)
@settings(max_examples=16, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_bands_answer_as_the_dense_net(
    stride: int,
    kernel: int,
    dilation: int,
    padding: int,
    height: int,
    ceil: bool,
    counts: bool,
    shares: tuple[int, ...],
    fused: int,
) -> None:
    torch.set_num_threads(1)
    net = windows(stride=stride, kernel=kernel, dilation=dilation, padding=padding, ceil=ceil, counts=counts)
    inputs = torch.randn(2, 2, height, 19, generator=torch.Generator().manual_seed(height))
    captured = capture(net, (inputs,))
    halos = plan_rows(captured, shares).halos
    plan = plan_rows(captured, shares, fused=[name for place, name in enumerate(halos) if fused >> place & 1])
    assert largest_difference(captured, plan, inputs) < 1e-5


def test_layers_that_share_an_exchange_compute_rows_twice_and_wait_less() -> None:
    torch.set_num_threads(1)
    inputs = samples(number=4)
    captured = capture(net_of(["residual", "concatenation"], 0), (inputs[:2],))
    halos = plan_rows(captured, (50, 50)).halos
    assert len(halos) > 2
    plans = [make_row_split(captured, shares=(50, 50), fused=fused) for fused in ((), halos[1::2], halos)]
    waits = [split.plan.synchronisations for split in plans]
    macs = [max(shard.macs for shard in split.plan.shards) for split in plans]
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == 0
    assert macs == sorted(macs)
    assert macs[0] < macs[1] < macs[2]
    with torch.no_grad():
        wanted = captured.graph_module(inputs).numpy()
    for split in plans:
        answer = SplitExecutor(split.plan, lambda name, split=split: split.files[name]).run(inputs.numpy())
        assert np.abs(answer.outputs[0] - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("names", [("residual", "projection", "concatenation"), ("grouped",), ("inverted",)])
def test_the_shards_of_generated_nets_answer_as_they_do(names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    inputs = samples(number=4)
    captured = capture(net_of(list(names), 0), (inputs[:2],))
    split = make_row_split(captured, shares=(50, 50))
    answer = SplitExecutor(split.plan, lambda name: split.files[name]).run(inputs.numpy())
    with torch.no_grad():
        wanted = captured.graph_module(inputs).numpy()
    assert np.abs(answer.outputs[0] - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert split.plan.layout == "Rows"
    counted = [sum(counts[rank] for counts in answer.bytes_in.values()) for rank in range(2)]
    assert counted == [len(inputs) * split.plan.bytes_into(rank) for rank in range(2)]
    # A gate over channels mixes all positions: everything is gathered for it, and named.
    assert bool(split.plan.notes) == ("inverted" in names)


def test_a_mean_at_the_end_is_a_sum_and_nothing_else_is_gathered() -> None:
    captured = capture(windows(), (torch.randn(2, 2, 28, 19),))
    plan = plan_rows(captured, (50, 50))
    assert plan.gathered == ()
    assert {point.kind for point in plan.points.values()} == {"send"}
    last = next(iter(reversed(plan.program.module.graph.nodes))).all_input_nodes[0]
    assert plan.states[last] == "part"


def shifted(window: Window, results: Rows, size: int) -> tuple[Rows, int, int]:
    """A halo that is off by a row."""
    rows, above, below = Window.needs(window, results, size)
    moved = Rows(rows.start + 1, rows.stop + 1) if rows.stop < size else Rows(rows.start - 1, rows.stop - 1)
    return (moved if moved.start >= 0 else rows), above, below


def padded_within(window: Window, results: Rows, size: int) -> tuple[Rows, int, int]:
    """A pad at the inner edge of a band in place of its neighbour's row."""
    rows, above, below = Window.needs(window, results, size)
    return (Rows(rows.start + 1, rows.stop), above + 1, below) if rows.start > 0 else (rows, above, below)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("fault", [shifted, padded_within])
def test_a_fault_in_a_halo_is_seen(fault: object, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(2, 2, 28, 19, generator=torch.Generator().manual_seed(0))
    captured = capture(windows(), (inputs,))
    sound = plan_rows(captured, (50, 50))
    without = sound.halos if fused else ()
    assert largest_difference(captured, plan_rows(captured, (50, 50), fused=without), inputs) < 1e-5

    @dataclasses.dataclass(frozen=True)
    class Faulty(Window):
        def needs(self, results: Rows, size: int) -> tuple[Rows, int, int]:
            return fault(self, results, size)  # type: ignore[operator]

    monkeypatch.setattr("edgefolio_pruner.split.rows.states.Window", Faulty)
    assert largest_difference(captured, plan_rows(captured, (50, 50), fused=without), inputs) > 1e-3


def test_nothing_has_rows_or_too_few() -> None:
    flat = capture(
        nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), (samples(number=2),)
    )
    with pytest.raises(UserError, match="no layer of this model has rows"):
        plan_rows(flat, (50, 50))
    low = capture(windows(), (torch.randn(2, 2, 5, 19),))
    with pytest.raises(UserError, match="rows, too few for the shares of 4 workers"):
        plan_rows(low, (25, 25, 25, 25))
    line = capture(windows(), (torch.randn(2, 2, 1, 19),))
    with pytest.raises(UserError, match="layer conv2d has 1 rows, too few for the shares of 2 workers"):
        plan_rows(line, (50, 50))


@given(size=st.integers(1, 100), shares=st.sampled_from(SHARES))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_bands_cover_all_rows_once(size: int, shares: tuple[int, ...]) -> None:
    edges = bands.band_edges(size, shares)
    assert (edges[0], edges[-1], len(edges)) == (0, size, len(shares) + 1)
    assert list(edges) == sorted(edges)


@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    before=st.integers(0, 2),
    size=st.integers(4, 12),
    ceil=st.booleans(),
    counts=st.booleans(),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_divisors_are_those_of_torch(
    kernel: int, stride: int, before: int, size: int, ceil: bool, counts: bool
) -> None:
    if 2 * before > kernel:
        return
    ones = torch.ones(1, 1, size, 1)
    mean = functional.avg_pool2d(ones, (kernel, 1), (stride, 1), (before, 0), ceil, counts)
    window = Window(kernel, stride, before, 1)
    found = bands.divisors(window, results=mean.shape[2], size=size, after=before, includes_padding=counts)
    starts = np.arange(mean.shape[2]) * stride - before
    inside = np.minimum(starts + kernel, size) - np.maximum(starts, 0)
    assert np.allclose(mean[0, 0, :, 0].numpy(), inside / found)
