"""The parts of the one-shot route: rows, the resumable run of a graph, shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgefolio_pruner.oneshot.graph_run import GraphRun, peak_bytes_per_sample
from edgefolio_pruner.oneshot.readers import Geometry, channel_step, find_readers, least_channels
from edgefolio_pruner.oneshot.rows import input_rows, output_positions, output_rows, sampled_positions
from edgefolio_pruner.oneshot.shares import LAST_OVER_FIRST, GroupLosses, LayerCost, MacsModel, plan_shares
from edgefolio_pruner.spatial import capture, channel_groups

if TYPE_CHECKING:
    from conftest import Digits


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    channels_last=st.booleans(),
)
def test_rows_times_weights_are_the_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    channels_last: bool,
) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 5, 9, 8, generator=generator)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(3, 5, *kernel, generator=generator)
    outputs = functional.conv2d(images, weight, None, stride, padding, dilation)
    positions = sampled_positions(4, output_positions(outputs, convolution=True), 30, generator=generator)
    rows = input_rows(images, positions, torch.arange(5), Geometry(kernel, stride, padding, dilation))
    expected = output_rows(outputs, positions, convolution=True)
    assert torch.allclose(rows @ weight.flatten(1).T, expected, atol=1e-4)
    part = input_rows(images, positions, torch.tensor([1, 4]), Geometry(kernel, stride, padding, dilation))
    assert torch.equal(part, rows.reshape(len(rows), 5, -1)[:, [1, 4]].flatten(1))


def test_rows_of_a_linear_layer_over_tokens() -> None:
    generator = torch.Generator().manual_seed(2)
    tokens, weight = torch.randn(3, 7, 6, generator=generator), torch.randn(4, 6, generator=generator)
    outputs = functional.linear(tokens, weight)
    positions = sampled_positions(3, output_positions(outputs, convolution=False), 12, generator=generator)
    rows = input_rows(tokens, positions, torch.arange(6), None)
    assert rows.shape == (12, 6)
    assert torch.allclose(rows @ weight.T, output_rows(outputs, positions, convolution=False), atol=1e-5)


def test_positions_never_repeat_within_a_sample() -> None:
    chosen = sampled_positions(20, 30, 200, generator=torch.Generator().manual_seed(0))
    assert chosen.shape == (20, 10)
    assert all(len(set(row.tolist())) == 10 for row in chosen)
    everything = sampled_positions(20, 30, 10_000, generator=torch.Generator().manual_seed(0))
    assert everything.shape == (20, 30)


def test_a_stopped_and_changed_run_ends_like_the_changed_net(
    trained: Callable[[str], nn.Module], digits: Digits
) -> None:
    module = trained("residual")
    captured = capture(module, (digits.images[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    readers, _ = find_readers(graph, state, channel_groups(captured))
    output = next(iter(reversed(graph.nodes))).args[0]
    last = output if isinstance(output, torch.fx.Node) else output[0]
    with torch.no_grad():
        run = GraphRun(
            graph,
            state,
            [digits.images[:16], digits.images[16:20]],
            hold=[*(pair for reader in readers for pair in reader.held), (last, last)],
        )
        for reader in readers:
            run.advance(reader.end)
            state[reader.weight] = state[reader.weight] * 1.5
            run.rerun(reader.chain)
        run.advance(last)
        for reader in readers:
            module.get_parameter(reader.weight).mul_(1.5)
        assert torch.allclose(torch.cat(run.values(last)), module(digits.images[:20]), rtol=1e-4, atol=1e-4)
        # The logits, and the last reader's input; everything else is gone.
        assert run.held_bytes() == 20 * (10 + 32) * 4
        # Two activations of 8 channels of 8 x 8, and the sample itself, are the least that a residual sum needs.
        assert 2 * 8 * 64 * 4 <= peak_bytes_per_sample(graph, state, digits.images[:2]) <= 5 * 8 * 64 * 4


def test_residual_blocks_are_fitted_to_their_sum_and_projections_before_it(
    trained: Callable[[str], nn.Module], digits: Digits
) -> None:
    captured = capture(trained("residual"), (digits.images[:2],))
    readers, _ = find_readers(captured.graph_module.graph, captured.parameters, channel_groups(captured))
    order = [reader.layer for reader in readers]
    assert order.index("layer2.0.shortcut.0") < order.index("layer2.0.conv2")
    by_layer = {reader.layer: reader for reader in readers}
    assert by_layer["layer2.0.conv2"].skip is not None
    assert by_layer["layer2.0.shortcut.0"].skip is None
    assert by_layer["layer2.0.shortcut.0"].group is None
    # What runs before the first pruned channel is read has nothing to repair.
    assert "conv1" not in by_layer
    assert "layer1.0.conv1" not in by_layer


losses = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    curves=st.lists(losses, min_size=1, max_size=4),
    target=st.floats(0.05, 1),
    step=st.integers(1, 4),
    last_over_first=st.sampled_from(LAST_OVER_FIRST),
)
def test_shares_reach_their_target_and_take_no_step_too_many(
    curves: list[list[float]], target: float, step: int, last_over_first: float
) -> None:
    groups = [GroupLosses(str(index), tuple(curve), step) for index, curve in enumerate(curves)]
    channels = {group.name: len(group.increases) + 1 for group in groups}
    names = list(channels)
    layers = tuple(
        LayerCost(1000 * (index + 1), tuple(names[max(0, index - 1) : index + 1])) for index in range(len(names) + 1)
    )
    model = MacsModel(layers, channels)
    asked = model.macs(channels) * target
    plan = plan_shares(groups, model=model, target=asked, last_over_first=last_over_first)
    kept = {name: channels[name] - plan[name] for name in names}
    assert all(kept[name] >= 1 and (kept[name] % step == 0 or not plan[name] or kept[name] == 1) for name in names)
    exhausted = all((kept[name] - 1) % step + 1 > kept[name] - 1 for name in names)
    assert exhausted or model.macs(kept) <= asked
    for name in names:
        back = min(step, plan[name])
        assert not back or model.macs(kept | {name: kept[name] + back}) > asked


def test_the_cheaper_group_per_saved_work_gives_first() -> None:
    groups = [GroupLosses("dear", (0.5,) * 9), GroupLosses("cheap", (0.001,) * 9)]
    model = MacsModel((LayerCost(1000, ("dear",)), LayerCost(1000, ("cheap",))), {"dear": 10, "cheap": 10})
    plan = plan_shares(groups, model=model, target=1500, last_over_first=1)
    assert plan == {"dear": 0, "cheap": 5}


def test_channels_go_in_steps_to_multiples() -> None:
    groups = [GroupLosses("odd", (0.1,) * 15, step=8), GroupLosses("even", (0.1,) * 8, step=4)]
    model = MacsModel((LayerCost(2100, ("odd",)), LayerCost(1200, ("even",))), {"odd": 21, "even": 12})
    plans = [plan_shares(groups, model=model, target=target, last_over_first=1) for target in (3200, 2500, 1500, 100)]
    left = [(21 - plan["odd"], 12 - plan["even"]) for plan in plans]
    assert all(odd in (21, 16, 8) and even in (12, 8, 4) for odd, even in left)
    assert left[-1] == (8, 4)
    assert [odd * 100 + even * 100 <= 2500 for odd, even in left] == [False, True, True, True]


@pytest.mark.parametrize(
    ("channels", "least"), [(3, 3), (8, 4), (16, 4), (32, 4), (64, 8), (128, 16), (512, 48), (2048, 168)]
)
def test_the_least_channels_are_a_multiple_of_the_step(channels: int, least: int) -> None:
    assert least_channels(channels) == least
    assert least_channels(channels) % channel_step(channels) == 0


def test_a_dear_channel_is_not_hidden_behind_a_cheap_one() -> None:
    groups = [GroupLosses("hidden", (0.9, 0.0, 0.0)), GroupLosses("even", (0.2, 0.2, 0.2))]
    model = MacsModel((LayerCost(400, ("hidden",)), LayerCost(400, ("even",))), {"hidden": 4, "even": 4})
    plan = plan_shares(groups, model=model, target=500, last_over_first=1)
    assert plan == {"hidden": 0, "even": 3}


def test_what_the_last_step_took_too_much_goes_back_to_the_dearest() -> None:
    groups = [GroupLosses("cheap", (0.01,) * 15, step=1), GroupLosses("coarse", (0.1,) * 15, step=8)]
    model = MacsModel((LayerCost(160, ("cheap",)), LayerCost(1600, ("coarse",))), {"cheap": 16, "coarse": 16})
    # Five cheap channels and eight of the other would do; the ten more that went first are not needed then.
    plan = plan_shares(groups, model=model, target=910, last_over_first=1)
    assert plan == {"cheap": 5, "coarse": 8}


def test_errors_may_weigh_more_where_less_can_repair_them() -> None:
    groups = [GroupLosses("early", (0.1,) * 9), GroupLosses("late", (0.1,) * 9)]
    model = MacsModel((LayerCost(1000, ("early",)), LayerCost(1000, ("late",))), {"early": 10, "late": 10})
    assert len(LAST_OVER_FIRST) == 3
    plans = [plan_shares(groups, model=model, target=1500, last_over_first=factor) for factor in LAST_OVER_FIRST]
    late = [plan["late"] for plan in plans]
    assert late == sorted(late, reverse=True)
    assert plans[-1]["early"] > plans[-1]["late"]


def test_unknown_readers_are_left_out_with_their_reason(digits: Digits) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 10, 8),
        nn.Flatten(),
    ).eval()
    captured = capture(module, (digits.images[:2],))
    readers, left_out = find_readers(captured.graph_module.graph, captured.parameters, channel_groups(captured))
    assert [reader.layer for reader in readers if reader.group is not None] == ["4"]
    assert "transpose" in left_out["0"] or "unusual" in left_out["0"]
