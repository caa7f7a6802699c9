"""The parts of the one-shot route: rows, the resumable run of a graph, shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgefolio_pruner.calibrating.graph_run import GraphRun, peak_bytes_per_sample
from edgefolio_pruner.calibrating.linear_maps import Geometry, LinearMap, linear_maps
from edgefolio_pruner.calibrating.rows import input_rows, output_positions, output_rows, sampled_positions
from edgefolio_pruner.oneshot.costs.macs import Axis, CostModel, LayerCost
from edgefolio_pruner.oneshot.prunable_groups import PrunableGroup, channel_step, least_channels, prunable_groups
from edgefolio_pruner.oneshot.shares import GroupLosses, plan_shares
from edgefolio_pruner.spatial import CapturedModel, capture, channel_groups

if TYPE_CHECKING:
    from conftest import Digits


def found_in(captured: CapturedModel) -> tuple[tuple[LinearMap, ...], tuple[PrunableGroup, ...], dict[str, str]]:
    maps, refused = linear_maps(captured.graph_module.graph, captured.parameters)
    groups, left_out = prunable_groups(channel_groups(captured), maps, refused)
    return maps, groups, left_out


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
    maps, _, _ = found_in(captured)
    output = next(iter(reversed(graph.nodes))).args[0]
    last = output if isinstance(output, torch.fx.Node) else output[0]
    with torch.no_grad():
        run = GraphRun(
            graph,
            state,
            [digits.images[:16], digits.images[16:20]],
            hold=[*(pair for linear in maps for pair in linear.held), (last, last)],
        )
        for linear in maps:
            run.advance(linear.end)
            state[linear.weight] = state[linear.weight] * 1.5
            run.rerun(linear.chain)
        run.advance(last)
        for linear in maps:
            module.get_parameter(linear.weight).mul_(1.5)
        assert torch.allclose(torch.cat(run.values(last)), module(digits.images[:20]), rtol=1e-4, atol=1e-4)
        # The logits, and the last reader's input; everything else is gone.
        assert run.held_bytes() == 20 * (10 + 32) * 4
        # Two activations of 8 channels of 8 x 8, and the sample itself, are the least that a residual sum needs.
        assert 2 * 8 * 64 * 4 <= peak_bytes_per_sample(graph, state, digits.images[:2]) <= 5 * 8 * 64 * 4


def test_residual_blocks_are_fitted_to_their_sum_and_projections_before_it(
    trained: Callable[[str], nn.Module], digits: Digits
) -> None:
    maps, groups, _ = found_in(capture(trained("residual"), (digits.images[:2],)))
    order = [linear.layer for linear in maps]
    assert order.index("layer2.0.shortcut.0") < order.index("layer2.0.conv2")
    by_layer = {linear.layer: linear for linear in maps}
    assert by_layer["layer2.0.conv2"].skip is not None
    assert by_layer["layer2.0.shortcut.0"].skip is None
    reads = {group.name: [read.linear.layer for read in group.reads] for group in groups}
    assert reads["conv1"] == ["layer1.0.conv1", "layer2.0.conv1", "layer2.0.shortcut.0"]
    assert reads["layer1.0.conv1"] == ["layer1.0.conv2"]
    # A block may lose all its inner channels, a stream may not.
    assert {group.name: group.least for group in groups if group.least == 0}.keys() == {
        "layer1.0.conv1",
        "layer2.0.conv1",
        "layer3.0.conv1",
    }


losses = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def layer(macs: int, *groups: tuple[str, int]) -> LayerCost:
    """A layer whose rows are the channels of the last group, and whose columns those of the one before."""
    return LayerCost("layer", macs, tuple(Axis(size, ((group, 1),)) for group, size in reversed(groups)))


@settings(max_examples=100, deadline=None)
@given(curves=st.lists(losses, min_size=1, max_size=4), target=st.floats(0.05, 1), step=st.integers(1, 4))
def test_shares_reach_their_target_and_take_no_step_too_many(
    curves: list[list[float]], target: float, step: int
) -> None:
    groups = [GroupLosses(str(index), tuple(curve), step) for index, curve in enumerate(curves)]
    channels = {group.name: len(group.increases) + 1 for group in groups}
    held = list(channels.items())
    layers = [layer(1000 * (index + 1), *held[max(0, index - 1) : index + 1]) for index in range(len(held) + 1)]
    model = CostModel(layers, channels)
    asked = model.cost(channels) * target
    plan = plan_shares(groups, model=model, target=asked)
    kept = {name: channels[name] - plan[name] for name in channels}
    assert all(kept[name] >= 1 and (kept[name] % step == 0 or not plan[name] or kept[name] == 1) for name in kept)
    exhausted = all((kept[name] - 1) % step + 1 > kept[name] - 1 for name in kept)
    assert exhausted or model.cost(kept) <= asked * (1 + 1e-9)
    for name in channels:
        back = min(step, plan[name])
        assert not back or model.cost(kept | {name: kept[name] + back}) > asked * (1 - 1e-9)


def test_the_cheaper_group_per_saved_work_gives_first() -> None:
    groups = [GroupLosses("dear", (0.5,) * 9), GroupLosses("cheap", (0.001,) * 9)]
    model = CostModel([layer(1000, ("dear", 10)), layer(1000, ("cheap", 10))], {"dear": 10, "cheap": 10})
    assert plan_shares(groups, model=model, target=1500) == {"dear": 0, "cheap": 5}


def test_channels_go_in_steps_to_multiples() -> None:
    groups = [GroupLosses("odd", (0.1,) * 15, step=8), GroupLosses("even", (0.1,) * 8, step=4)]
    model = CostModel([layer(2100, ("odd", 21)), layer(1200, ("even", 12))], {"odd": 21, "even": 12})
    plans = [plan_shares(groups, model=model, target=target) for target in (3200, 2500, 1500, 100)]
    left = [(21 - plan["odd"], 12 - plan["even"]) for plan in plans]
    assert all(odd in (21, 16, 8) and even in (12, 8, 4) for odd, even in left)
    assert left[-1] == (8, 4)
    assert [odd * 100 + even * 100 <= 2500 for odd, even in left] == [False, True, True, True]


def test_a_layer_that_reads_two_groups_shrinks_by_the_sum_of_both() -> None:
    joined = LayerCost("joined", 1200, (Axis(6, ()), Axis(12, (("first", 1), ("second", 2)))))
    model = CostModel([joined], {"first": 4, "second": 4})
    assert model.cost({"first": 4, "second": 4}) == 1200
    assert model.cost({"first": 2, "second": 4}) == 1000
    assert model.cost({"first": 2, "second": 1}) == 400
    assert model.saved({"first": 2, "second": 4}, "second", 3) == 600


def test_a_plateau_of_the_cost_is_passed_in_one_go() -> None:
    class Plateau:
        groups = frozenset({"flat"})

        def cost(self, channels: Mapping[str, int], kept: Mapping[str, int]) -> float:
            return 100.0 if kept["flat"] > 8 else 40.0

    groups = [GroupLosses("flat", (0.1,) * 12, step=4), GroupLosses("plain", (0.5,) * 9)]
    model = CostModel([Plateau(), layer(100, ("plain", 10))], {"flat": 16, "plain": 10})
    assert plan_shares(groups, model=model, target=150) == {"flat": 8, "plain": 0}
    # Four channels less save nothing: they are given back.
    assert plan_shares(groups, model=model, target=195) == {"flat": 0, "plain": 1}


@pytest.mark.parametrize(
    ("channels", "least"), [(3, 3), (8, 4), (16, 4), (32, 4), (64, 8), (128, 16), (512, 48), (2048, 168)]
)
def test_the_least_channels_are_a_multiple_of_the_step(channels: int, least: int) -> None:
    assert least_channels(channels) == least
    assert least_channels(channels) % channel_step(channels) == 0


def test_a_dear_channel_is_not_hidden_behind_a_cheap_one() -> None:
    groups = [GroupLosses("hidden", (0.9, 0.0, 0.0)), GroupLosses("even", (0.2, 0.2, 0.2))]
    model = CostModel([layer(400, ("hidden", 4)), layer(400, ("even", 4))], {"hidden": 4, "even": 4})
    assert plan_shares(groups, model=model, target=700) == {"hidden": 0, "even": 1}
    # All three of it together are cheaper than three of the other.
    assert plan_shares([GroupLosses("hidden", (0.5, 0.0, 0.0)), groups[1]], model=model, target=500) == {
        "hidden": 3,
        "even": 0,
    }


def test_what_the_last_step_took_too_much_goes_back_to_the_dearest() -> None:
    groups = [GroupLosses("cheap", (0.01,) * 15, step=1), GroupLosses("coarse", (0.1,) * 15, step=8)]
    model = CostModel([layer(160, ("cheap", 16)), layer(1600, ("coarse", 16))], {"cheap": 16, "coarse": 16})
    plan = plan_shares(groups, model=model, target=910)
    assert plan == {"cheap": 5, "coarse": 8}


def test_unknown_readers_are_left_out_with_their_reason(digits: Digits) -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 10, 8),
        nn.Flatten(),
    ).eval()
    _, groups, left_out = found_in(capture(module, (digits.images[:2],)))
    assert [group.name for group in groups] == ["2"]
    assert "transpose" in left_out["0"] or "unusual" in left_out["0"]
