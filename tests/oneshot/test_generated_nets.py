"""Generated nets of every way in which channels are tied: what the one-shot route zeroes is removed exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgefolio_pruner.oneshot import OneShotResult, prune_to_targets
from edgefolio_pruner.spatial import capture, compress

torch.set_num_threads(1)


def convolution(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two convolutions beside a skip, with a projection where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = convolution(inputs, 12), convolution(12, outputs)
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.second(functional.relu(self.first(hidden))) + self.skip(hidden))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection onto a skip without an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand, self.depthwise = convolution(channels, 20, 1), convolution(20, 20, groups=20)
        self.squeeze, self.excite = nn.Conv2d(20, 8, 1), nn.Conv2d(8, 20, 1)
        self.project = convolution(20, channels, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = functional.relu6(self.depthwise(functional.relu6(self.expand(hidden))))
        gate = self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(wide, 1))))
        return hidden + self.project(wide * functional.hardsigmoid(gate))


class Concatenation(nn.Module):
    """Two branches side by side, both read by one layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left, self.right = convolution(inputs, 8, 1), convolution(inputs, 12)
        self.join = convolution(20, outputs, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.join(functional.relu(torch.cat([self.left(hidden), self.right(hidden)], 1))))


class Grouped(nn.Module):
    """A bottleneck around a convolution with two groups."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.grouped, self.up = (
            convolution(channels, 24, 1),
            convolution(24, 24, groups=2),
            convolution(24, channels, 1),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.grouped(functional.relu(self.down(hidden))))
        return functional.relu(hidden + self.up(inner))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Residual(12, 12),
    "projection": lambda: Residual(12, 12 + 4),
    "inverted": lambda: Inverted(12),
    "concatenation": lambda: Concatenation(12, 12),
    "grouped": lambda: Grouped(12),
}


def net_of(names: list[str], seed: int) -> nn.Module:
    """A net of these blocks with random weights and batch norms that have seen data."""
    torch.manual_seed(seed)
    blocks: list[nn.Module] = [convolution(1, 12), nn.ReLU()]
    for name in names:
        blocks.append(BLOCKS[name]())
        if name == "projection":
            blocks.append(convolution(16, 12, 1))
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)).train()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    for _ in range(12):
        net(torch.randn(64, 1, 6, 6))
    return net.eval()


def samples(seed: int = 9, number: int = 64) -> torch.Tensor:
    return torch.randn(number, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def pruned(net: nn.Module, *percents: int) -> tuple[OneShotResult, ...]:
    return prune_to_targets(module=net, calibration=samples(), macs_percents=percents, seed=0, threads=1)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    percent=st.integers(25, 80),
)
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
