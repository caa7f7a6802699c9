"""Generated nets of every way in which channels are tied: what the one-shot route zeroes is removed exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from generated_nets import BLOCKS, net_of, samples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from edgefolio_pruner.oneshot import OneShotResult, prune_to_targets
from edgefolio_pruner.spatial import capture, compress

torch.set_num_threads(1)


def pruned(net: nn.Module, *percents: int) -> tuple[OneShotResult, ...]:
    return prune_to_targets(module=net, calibration=samples(), macs_percents=percents, seed=0, threads=1)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    percent=st.integers(25, 80),
)
@example(names=["inverted", "concatenation", "grouped"], seed=311, percent=25)
def test_the_compiled_net_is_the_masked_net_and_has_the_size_that_was_told(
    names: list[str], seed: int, percent: int
) -> None:
    net = net_of(names, seed)
    (result,) = pruned(net, percent)
    masked = copy.deepcopy(net)
    masked.load_state_dict(result.state)
    masked.double()
    found = compress(capture(masked, (samples().double()[:2],)))
    with torch.no_grad():
        expected, got = masked(samples().double()), found.module(samples().double())
    # Both are float64 sums over fewer than a thousand terms a layer, in different orders.
    assert torch.allclose(expected, got, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    share = 100 * found.report.macs_after / found.report.macs_before
    assert share == pytest.approx(result.macs_percent_reached, abs=1e-6)
    assert result.reached == (result.macs_percent_reached <= percent + 1e-9)
    assert torch.isfinite(expected).all()


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_group_that_the_compiler_can_remove_is_pruned(name: str) -> None:
    net = net_of([name], 1)
    (result,) = pruned(net, 1)
    # The output's classes, and nothing else, stay; what a group may lose at most depends on its kind.
    assert set(result.left_out) == {"5" if name != "projection" else "6"}
    assert all(kept < before for kept, before in result.kept.values())


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_refits_of_all_readers_repair_what_zeroing_alone_breaks(name: str) -> None:
    net = net_of([name, "residual"], 2)
    (result,) = pruned(net, 60)
    zeroed = copy.deepcopy(net)
    refitted = copy.deepcopy(net)
    refitted.load_state_dict(result.state)
    # The same channels, at zero, with the old weights elsewhere.
    captured = capture(net, (samples()[:2],))
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    for key, tensor in result.state.items():
        if key in captured.parameters and tensor.ndim >= 1:
            state[key] = torch.where(tensor == 0, torch.zeros_like(state[key]), state[key])
    zeroed.load_state_dict(state)
    fresh = samples(77, 200)
    with torch.no_grad():
        wanted = net(fresh)
        errors = [float((module(fresh) - wanted).square().mean()) for module in (refitted, zeroed)]
    assert errors[0] < errors[1]


def test_equal_inputs_give_equal_bytes() -> None:
    net = net_of(["inverted", "grouped", "concatenation"], 3)
    first, second = pruned(net, 50), pruned(net, 50)
    assert first[0].kept == second[0].kept
    assert all(torch.equal(tensor, second[0].state[name]) for name, tensor in first[0].state.items())
