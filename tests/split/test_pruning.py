"""What is sent is chosen by what the receiver cannot replace, and the rest is adjusted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generated_nets import net_of, samples
from torch import nn

from edgefolio_pruner.refit import regularised_quadratic
from edgefolio_pruner.spatial import CapturedModel, capture
from edgefolio_pruner.split.channels.ownership import Ownership, contiguous, everything, masked
from edgefolio_pruner.split.channels.sending import choose_sent, elimination_orders
from edgefolio_pruner.split.channels.swapping import RIDGE, swap_units
from edgefolio_pruner.split.planning import Recipe, SplitPlanner


class Redundant(nn.Module):
    """Hidden unit 4 (the second worker's) equals unit 0 (the first worker's), and is read with a large weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.first.weight[4] = self.first.weight[0]
            self.first.bias[4] = self.first.bias[0]
            self.second.weight[:4, 4] = 3.0 + torch.rand(4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(inputs)))))


def redundant() -> tuple[CapturedModel, SplitPlanner, torch.Tensor]:
    torch.set_num_threads(1)
    inputs = torch.randn(2048, 12, generator=torch.Generator().manual_seed(1))
    captured = capture(Redundant().eval(), (inputs[:2],))
    return captured, SplitPlanner(captured, inputs, shares=(50, 50)), inputs


def test_a_remote_column_that_equals_a_local_one_goes_first_and_is_not_missed() -> None:
    captured, planner, inputs = redundant()
    owner = contiguous(planner.divided, (50, 50))
    (exchange,) = planner.survey.exchanges
    orders = {
        second: {
            order.worker: order for order in elimination_orders(planner.survey, owner, 2, second_order=second).orders
        }
        for second in (True, False)
    }
    assert orders[True][0].blocks[0] == 4
    # By the size of its weights it is the last to go.
    assert orders[False][0].blocks[-1] == 4
    received = everything(planner.divided, 2)
    received[exchange.point.name][0, 4] = False
    ownership = Ownership(2, owner, received)
    from edgefolio_pruner.split.channels.adjusting import adjust

    chunks = list(torch.split(inputs, 256))
    with torch.no_grad():
        state = adjust(planner.divided, captured, ownership, chunks, seed=0).state
        dense = captured.graph_module(inputs)
        without = captured.with_state(masked(planner.divided, ownership, dict(captured.parameters)))
        lost = float((without.graph_module(inputs) - dense).square().sum())
        left = float((captured.with_state(state).graph_module(inputs) - dense).square().sum())
    assert left <= 1e-3 * lost


def test_the_loss_of_a_drop_is_the_loss_after_a_refit() -> None:
    _, planner, _ = redundant()
    owner = contiguous(planner.divided, (50, 50))
    (exchange,) = planner.survey.exchanges
    (reader,) = exchange.readers
    form = regularised_quadratic(reader.moments, prior=reader.prior, ridge=RIDGE, intercept=True)
    for order in elimination_orders(planner.survey, owner, 2).orders:
        rows = torch.from_numpy(np.flatnonzero(owner[reader.row_units] == order.worker))
        linear = form.linear[:, rows]
        unit = reader.variance * reader.moments.rows
        for count in range(1, len(order.blocks) + 1):
            kept = np.setdiff1d(np.arange(8), order.blocks[:count])
            columns = torch.from_numpy(reader.columns[kept].ravel())
            inner = form.curvature[columns][:, columns]
            best = -float((linear[columns] * torch.linalg.solve(inner, linear[columns])).sum())
            whole = -float((linear * torch.linalg.solve(form.curvature, linear)).sum())
            assert order.losses[:count].sum() == pytest.approx((best - whole) / unit, rel=1e-6, abs=1e-9)


@pytest.fixture(scope="module")
def generated() -> tuple[CapturedModel, SplitPlanner, torch.Tensor]:
    torch.set_num_threads(1)
    inputs = samples(number=256)
    captured = capture(net_of(["residual", "concatenation"], 0), (inputs[:2],))
    return captured, SplitPlanner(captured, inputs, shares=(50, 50)), inputs


@pytest.mark.parametrize("keep", [0.7, 0.3, 0.1, 0.0])
def test_the_budget_holds_and_no_worker_gets_far_more_than_the_others(
    generated: tuple[CapturedModel, SplitPlanner, torch.Tensor], keep: float
) -> None:
    _, planner, _ = generated
    orders = elimination_orders(planner.survey, contiguous(planner.divided, (50, 50)), 2)
    budget = int(keep * orders.total_bytes)
    ownership = choose_sent(planner.divided, orders, budget=budget, exchange_bytes=100)
    into = np.sum(list(ownership.bytes_in(planner.divided).values()), axis=0)
    assert into.sum() <= budget
    largest = max(int(exchange.block_bytes.max()) for exchange in planner.survey.exchanges)
    assert into.max() <= max(1.1 * into.mean(), into.mean() + largest)


def test_a_dear_synchronisation_empties_whole_exchanges(
    generated: tuple[CapturedModel, SplitPlanner, torch.Tensor],
) -> None:
    _, planner, _ = generated
    orders = elimination_orders(planner.survey, contiguous(planner.divided, (50, 50)), 2)
    budget = int(0.4 * orders.total_bytes)
    used = []
    for price in (0, 10 * orders.total_bytes):
        ownership = choose_sent(planner.divided, orders, budget=budget, exchange_bytes=price)
        used.append(sum(any(counts) for counts in ownership.bytes_in(planner.divided).values()))
    assert used[1] < used[0]


def test_swaps_lower_the_exact_loss_and_keep_the_capacities(
    generated: tuple[CapturedModel, SplitPlanner, torch.Tensor],
) -> None:
    _, planner, _ = generated
    owner = contiguous(planner.divided, (50, 50))
    nothing = [np.zeros((2, len(exchange.point.block_units)), dtype=bool) for exchange in planner.survey.exchanges]
    found = swap_units(planner.divided, planner.survey, owner, nothing, workers=2, seed=0)
    assert found.after < 0.98 * found.before
    for family in planner.divided.families:
        assert np.bincount(found.owner[family.units]).tolist() == np.bincount(owner[family.units]).tolist()


def test_adjusting_repairs_most_of_what_pruning_breaks_and_the_masks_stay(
    generated: tuple[CapturedModel, SplitPlanner, torch.Tensor],
) -> None:
    _, planner, _ = generated
    adjusted, plain = (planner.plan(0.2, recipe=Recipe(adjust=adjust, swaps=False)) for adjust in (True, False))
    assert adjusted.made.plan.certificate is not None
    assert plain.made.plan.certificate is not None
    assert adjusted.made.plan.certificate.relative_error < 0.2 * plain.made.plan.certificate.relative_error
    assert adjusted.shaped is not None
    again = masked(planner.divided, adjusted.shaped.ownership, adjusted.shaped.state)
    assert all(torch.equal(again[name], adjusted.shaped.state[name]) for name in again)


def test_the_certificate_is_what_the_shards_are_off_by(
    generated: tuple[CapturedModel, SplitPlanner, torch.Tensor],
) -> None:
    captured, planner, inputs = generated
    plan = planner.plan(0.3, recipe=Recipe(swaps=False))
    held_out = inputs[3::4]
    with torch.no_grad():
        dense = captured.graph_module(held_out).double().numpy()
    off = plan.executor().run(held_out.numpy()).outputs[0] - dense
    certificate = plan.made.plan.certificate
    assert certificate is not None
    assert certificate.samples == len(held_out)
    assert certificate.relative_error == pytest.approx((off**2).sum() / ((dense - dense.mean(0)) ** 2).sum(), rel=1e-4)
    # A certified sample keeps its class.
    assert certificate.certified_percent <= certificate.agreement_percent


def test_a_wire_of_eight_bits_sends_a_quarter_and_keeps_zeros(
    generated: tuple[CapturedModel, SplitPlanner, torch.Tensor],
) -> None:
    _, planner, inputs = generated
    floats, bytes_ = (planner.plan(1.0, wire=wire) for wire in ("Float32", "UInt8"))
    assert floats.bytes_in == 4 * bytes_.bytes_in
    answers = [plan.executor().run(inputs[:32].numpy()) for plan in (floats, bytes_)]
    assert sum(map(sum, answers[0].bytes_in.values())) == 4 * sum(map(sum, answers[1].bytes_in.values()))
    off = np.abs(answers[0].outputs[0] - answers[1].outputs[0]).max() / np.abs(answers[0].outputs[0]).max()
    assert 0 < off < 0.05


def test_too_few_samples_give_factors_and_say_so() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = (nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 4))
    inputs = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    planner = SplitPlanner(capture(nn.Sequential(*layers).eval(), (inputs[:2],)), inputs, shares=(50, 50))
    assert planner.survey.scarce == ("2: 64 rows for 40 columns",)
    plan = planner.plan(0.3)
    assert 0 < plan.bytes_in <= 0.3 * planner.dense_bytes
    assert plan.shaped is not None
    assert {residual.method for residual in plan.shaped.residuals} == {"scale-and-bias"}
    assert any("2: 64 rows for 40 columns" in note for note in plan.made.plan.notes)
    assert np.isfinite(plan.executor().run(inputs.numpy()).outputs[0]).all()


def test_constant_samples_keep_all_columns() -> None:
    torch.set_num_threads(1)
    captured = capture(net_of(["residual"], 0), (samples(number=2),))
    planner = SplitPlanner(captured, torch.ones(64, 1, 6, 6), shares=(50, 50))
    assert len(planner.survey.exchanges) == 0
    assert len(planner.survey.whole) == 2
    plan = planner.plan(0.1)
    assert plan.bytes_in == planner.dense_bytes
    assert any("all columns are kept at" in note for note in plan.made.plan.notes)
