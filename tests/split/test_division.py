"""A divided network computes what the ordinary one does, whoever owns what, and the plan says truly what travels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from divided_nets import any_ownership, captured_net, difference, in_torch
from generated_nets import BLOCKS, samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgefolio.errors import UserError
from edgefolio.specification.splitting import equal_shares
from edgefolio_pruner.spatial import CapturedModel, capture
from edgefolio_pruner.split.channels.ownership import Ownership, capacities, contiguous, masked
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.making import MadeSplit, make_split
from edgefolio_split.executor import SplitExecutor


def made(captured: CapturedModel, ownership: Ownership, shares: Sequence[int]) -> tuple[MadeSplit, CapturedModel]:
    state = masked(divide(captured), ownership, dict(captured.parameters))
    return make_split(captured, ownership, state=state, shares=shares), captured.with_state(state)


def executor(split: MadeSplit) -> SplitExecutor:
    return SplitExecutor(split.plan, lambda name: split.files[name])


@given(
    names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=2),
    shares=st.sampled_from([(50, 50), (70, 30)]),
    seed=st.integers(0, 1000),
    keep=st.sampled_from([1.0, 0.5, 0.0]),
)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_parts_equal_the_masked_net(names: list[str], shares: tuple[int, ...], seed: int, keep: float) -> None:
    captured, inputs = captured_net(*names), samples(number=4)
    divided = divide(captured)
    ownership = any_ownership(divided, shares, seed, keep)
    net = captured.with_state(masked(divided, ownership, dict(captured.parameters)))
    answer = in_torch(net, ownership, inputs)
    assert difference(answer, net.graph_module, inputs) < 1e-4
    if keep == 1.0:
        assert difference(answer, captured.graph_module, inputs) < 1e-5


@pytest.mark.parametrize(
    ("names", "keep"), [(("residual", "inverted"), 1.0), (("concatenation", "grouped"), 0.5), (("projection",), 0.0)]
)
def test_shards_equal_the_masked_net_and_bytes_are_as_counted(names: tuple[str, ...], keep: float) -> None:
    captured, inputs, shares = captured_net(*names), samples(number=4), (50, 50)
    divided = divide(captured)
    ownership = any_ownership(divided, shares, 5, keep)
    split, net = made(captured, ownership, shares)
    answer = executor(split).run(inputs.numpy())
    assert difference(answer.outputs[0], net.graph_module, inputs) < 1e-4
    if keep == 1.0:
        assert difference(answer.outputs[0], captured.graph_module, inputs) < 1e-5
    counted = {name: tuple(4 * each for each in counts) for name, counts in ownership.bytes_in(divided).items()}
    assert answer.bytes_in == {name: counts for name, counts in counted.items() if any(counts)}
    for rank in range(2):
        assert 4 * split.plan.bytes_into(rank) == sum(counts[rank] for counts in answer.bytes_in.values())


def test_three_unequal_workers_of_all_blocks() -> None:
    captured, inputs, shares = captured_net("residual", "concatenation", "inverted"), samples(number=4), (50, 30, 20)
    divided = divide(captured)
    split, _ = made(captured, any_ownership(divided, shares, 3, 1.0), shares)
    assert difference(executor(split).run(inputs.numpy()).outputs[0], captured.graph_module, inputs) < 1e-5


def test_one_worker_is_the_network_itself() -> None:
    captured, inputs = captured_net("residual", "grouped"), samples(number=4)
    split, _ = made(captured, any_ownership(divide(captured), (100,), 0, 0.0), (100,))
    assert not split.plan.exchanges
    assert [len(shard.segments) for shard in split.plan.shards] == [1]
    assert difference(executor(split).run(inputs.numpy()).outputs[0], captured.graph_module, inputs) < 1e-5


def test_equal_inputs_give_equal_bytes() -> None:
    captured = captured_net("residual")
    ownership = any_ownership(divide(captured), (50, 50), 1, 0.5)
    first, second = (made(captured, ownership, (50, 50))[0] for _ in range(2))
    assert first.plan.to_bytes() == second.plan.to_bytes()
    assert first.files == second.files


@given(units=st.integers(1, 40), shares=st.sampled_from([(50, 50), (70, 30), (50, 30, 20), (25, 25, 25, 25)]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_capacities_follow_the_shares(units: int, shares: tuple[int, ...]) -> None:
    from edgefolio_pruner.split.exchanges.points import Family

    family = Family("layer", np.arange(units))
    exact = [units * share / 100 for share in shares]
    field = "--workers"
    if units < len(shares):
        with pytest.raises(UserError, match="has only"):
            capacities(family, shares, field=field)
    elif min(exact) < 0.5 and _largest_remainders(exact)[int(np.argmin(exact))] == 0:
        with pytest.raises(UserError, match="leaves a worker without one"):
            capacities(family, shares, field=field)
    else:
        counts = capacities(family, shares, field=field)
        assert sum(counts) == units
        assert all(abs(count - wanted) < 1 for count, wanted in zip(counts, exact, strict=True))


def _largest_remainders(exact: list[float]) -> list[int]:
    whole = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda rank: -(exact[rank] - whole[rank]))
    for rank in order[: round(sum(exact)) - sum(whole)]:
        whole[rank] += 1
    return whole


def test_more_workers_than_units_names_the_layer_and_the_largest_number() -> None:
    divided = divide(captured_net("grouped"))
    with pytest.raises(UserError) as error:
        contiguous(divided, equal_shares(3))
    assert error.value.field == "--workers"
    assert "2.down.0 has only 2 units" in error.value.problem
    assert "at most 2 workers" in error.value.remedy


class Attention(nn.Module):
    """A softmax over channels, which no transfer function knows, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.softmax(torch.relu(self.first(inputs)), 1)
        return torch.softmax(self.last(torch.relu(self.second(hidden)).mean((2, 3))), 1)


def test_an_operator_without_a_rule_is_gathered_and_named() -> None:
    torch.manual_seed(0)
    inputs = samples(number=4)
    captured = capture(Attention().eval(), (inputs[:2],))
    divided = divide(captured)
    assert any("softmax" in reason for reason in divided.gathered)
    split, _ = made(captured, any_ownership(divided, (50, 50), 0, 1.0), (50, 50))
    assert {exchange.kind for exchange in split.plan.exchanges} == {"send", "gather"} or all(
        exchange.kind == "gather" for exchange in split.plan.exchanges
    )
    assert difference(executor(split).run(inputs.numpy()).outputs[0], captured.graph_module, inputs) < 1e-5


class Attending(nn.Module):
    """Four heads over the positions of an image, each of which one worker owns."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.last = nn.Linear(16, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.embed(inputs.flatten(1, 2)))
        heads = [layer(hidden).unflatten(2, (4, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        attended = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return self.last(torch.relu(hidden + self.out(attended)).mean(1))


def test_heads_of_attention_are_owned_whole() -> None:
    torch.manual_seed(0)
    inputs = samples(number=4)
    captured = capture(Attending().eval(), (inputs[:2],))
    divided = divide(captured)
    assert any(len(family.units) == 4 for family in divided.families)
    split, _ = made(captured, any_ownership(divided, (50, 50), 0, 1.0), (50, 50))
    assert difference(executor(split).run(inputs.numpy()).outputs[0], captured.graph_module, inputs) < 1e-5


def test_a_model_without_layers_has_nothing_to_divide() -> None:
    captured = capture(nn.Sequential(nn.Flatten(), nn.Softmax(1)).eval(), (samples(number=2),))
    with pytest.raises(UserError, match="no layer of this model can be divided"):
        divide(captured)


@given(seed=st.integers(0, 10_000), keep=st.floats(0, 1), workers=st.integers(2, 3))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_exchange_is_a_linear_operator_with_its_adjoint(seed: int, keep: float, workers: int) -> None:
    """``<F x, y> = <x, F* y>``: no element is lost, doubled or sent by two."""
    divided = divide(captured_net("residual", "concatenation"))
    ownership = any_ownership(divided, equal_shares(workers), seed, keep)
    from edgefolio_pruner.split.shards.wire import slots_between

    generator = np.random.default_rng(seed)
    for point in divided.points:
        x = generator.normal(size=len(point.units))
        y = [generator.normal(size=len(point.units)) * ownership.keeps(point, worker) for worker in range(workers)]
        pairs = [(sender, receiver) for sender in range(workers) for receiver in range(workers) if sender != receiver]
        forward = [np.where(ownership.has(point, worker), x, 0.0) for worker in range(workers)]
        backward = sum(np.where(ownership.has(point, worker), y[worker], 0.0) for worker in range(workers))
        for sender, receiver in pairs:
            slots = slots_between(ownership, point, sender, receiver)
            assert ownership.has(point, sender)[slots].all()
            forward[receiver][slots] += x[slots]
            backward[slots] += y[receiver][slots]
        for worker in range(workers):
            assert np.array_equal(forward[worker] != 0, ownership.keeps(point, worker))
        left = sum(float(forward[worker] @ y[worker]) for worker in range(workers))
        assert left == pytest.approx(float(x @ backward))
