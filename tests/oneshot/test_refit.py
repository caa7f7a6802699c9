"""The refit core against what it must equal: direct least squares, joint removal, and every subset tried."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio_pruner.refit import (
    MomentAccumulator,
    Moments,
    Quadratic,
    SelectionPart,
    SplitMoments,
    block_contributions,
    eliminate_blocks,
    eliminate_jointly,
    refit_columns,
    regularised_quadratic,
    select_blocks,
)

torch.set_num_threads(1)


def random_quadratic(seed: int, columns: int, outputs: int) -> Quadratic:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(columns + 3, columns, generator=generator, dtype=torch.float64)
    return Quadratic(
        curvature=factor.T @ factor + 0.01 * torch.eye(columns, dtype=torch.float64),
        linear=torch.randn(columns, outputs, generator=generator, dtype=torch.float64),
        constant=50.0,
    )


def minimum_on(form: Quadratic, kept: torch.Tensor) -> torch.Tensor:
    """The weights of least loss that are zero outside the columns ``kept``."""
    weights = torch.zeros_like(form.linear)
    if kept.numel():
        weights[kept] = Quadratic(form.curvature[kept][:, kept], form.linear[kept], form.constant).minimum()
    return weights


def contiguous_blocks(number: int, size: int) -> torch.Tensor:
    return torch.arange(number * size).reshape(number, size)


def moments_of(inputs: torch.Tensor, targets: torch.Tensor) -> Moments:
    accumulator = MomentAccumulator(columns=inputs.shape[1], outputs=targets.shape[1])
    for start in range(0, len(inputs), 7):
        accumulator.add(inputs[start : start + 7].float(), targets[start : start + 7].float())
    return accumulator.moments()


def linear_data(
    seed: int, rows: int, columns: int, outputs: int, noise: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(rows, columns, generator=generator) @ mixing + 2
    weights = torch.randn(columns, outputs, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    targets = inputs @ weights + bias + noise * torch.randn(rows, outputs, generator=generator)
    return inputs, targets, weights.double(), bias.double()


def split(inputs: torch.Tensor, targets: torch.Tensor) -> SplitMoments:
    held_out = torch.arange(len(inputs)) % 4 == 3
    return SplitMoments(
        fit=moments_of(inputs[~held_out], targets[~held_out]),
        held_out=moments_of(inputs[held_out], targets[held_out]),
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), number=st.integers(2, 9), size=st.integers(1, 4), outputs=st.integers(1, 5))
def test_the_predicted_increase_is_the_loss_of_the_refit(seed: int, number: int, size: int, outputs: int) -> None:
    form = random_quadratic(seed, number * size, outputs)
    blocks = contiguous_blocks(number, size)
    found = eliminate_blocks(form, blocks=blocks)
    assert len(found.order) == number - 1
    predicted = form.loss(form.minimum())
    for dropped in range(1, number):
        predicted += found.increases[dropped - 1]
        kept = blocks[list(found.kept(dropped, number))].reshape(-1)
        assert form.loss(minimum_on(form, kept)) == pytest.approx(predicted, rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_dropping_one_by_one_costs_what_dropping_together_costs(seed: int) -> None:
    form = random_quadratic(seed, 12, 3)
    found = eliminate_blocks(form, blocks=contiguous_blocks(6, 2), minimum_kept=2)
    gone = contiguous_blocks(6, 2)[list(found.order)].reshape(-1)
    weights, inverse = form.minimum(), torch.linalg.inv(form.curvature)
    joint = (weights[gone] * torch.linalg.solve(inverse[gone][:, gone], weights[gone])).sum()
    assert sum(found.increases) == pytest.approx(float(joint), rel=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), price_seed=st.integers(0, 100))
def test_every_greedy_step_is_the_best_of_all_single_drops(seed: int, price_seed: int) -> None:
    form = random_quadratic(seed, 10, 2)
    blocks = contiguous_blocks(5, 2)
    prices = torch.rand(5, generator=torch.Generator().manual_seed(price_seed), dtype=torch.float64) + 0.1
    found = eliminate_blocks(form, blocks=blocks, prices=prices)
    kept = list(range(5))
    for choice in found.order:
        now = form.loss(minimum_on(form, blocks[kept].reshape(-1)))
        scores = {}
        for block in kept:
            rest = [other for other in kept if other != block]
            scores[block] = (form.loss(minimum_on(form, blocks[rest].reshape(-1))) - now) / float(prices[block])
        assert scores[choice] == pytest.approx(min(scores.values()), rel=1e-6)
        kept.remove(choice)


def test_greedy_finds_the_best_subset_where_columns_are_independent() -> None:
    form = random_quadratic(5, 6, 2)
    form = Quadratic(torch.diag(form.curvature.diagonal()), form.linear, form.constant)
    blocks = contiguous_blocks(6, 1)
    found = eliminate_blocks(form, blocks=blocks)
    for dropped in range(1, 6):
        best = min(
            itertools.combinations(range(6), 6 - dropped),
            key=lambda kept: form.loss(minimum_on(form, torch.tensor(kept))),
        )
        assert found.kept(dropped, 6) == best


def test_a_copied_block_goes_first_and_for_nothing() -> None:
    inputs, targets, weights, _ = linear_data(0, 400, 6, 4)
    inputs = torch.cat([inputs, inputs[:, 2:4]], 1)
    prior = torch.cat([weights, torch.zeros(2, 4, dtype=torch.float64)])
    form = regularised_quadratic(moments_of(inputs, targets), prior=prior, ridge=1e-9, intercept=True)
    found = eliminate_blocks(form, blocks=contiguous_blocks(4, 2))
    assert found.order[0] in (1, 3)
    assert found.increases[0] < 1e-5 * found.increases[1]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_columns_and_blocks_does_not_matter(seed: int) -> None:
    form = random_quadratic(seed, 12, 3)
    blocks = contiguous_blocks(4, 3)
    shuffle = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    place = torch.empty_like(shuffle)
    place[shuffle] = torch.arange(12)
    shuffled = Quadratic(form.curvature[shuffle][:, shuffle], form.linear[shuffle], form.constant)
    turned = [2, 0, 3, 1]
    first = eliminate_blocks(form, blocks=blocks)
    second = eliminate_blocks(shuffled, blocks=place[blocks][turned])
    assert [turned[block] for block in second.order] == list(first.order)
    assert second.increases == pytest.approx(first.increases, rel=1e-7)


def test_only_candidates_go_and_the_floor_holds() -> None:
    form = random_quadratic(1, 8, 2)
    candidates = torch.tensor([True, False, True, True, False, True, True, True])
    found = eliminate_blocks(form, blocks=contiguous_blocks(8, 1), candidates=candidates)
    assert set(found.order) == {0, 2, 3, 5, 6, 7}
    assert len(eliminate_blocks(form, blocks=contiguous_blocks(8, 1), minimum_kept=3).order) == 5


def test_blocks_must_not_overlap() -> None:
    with pytest.raises(ValueError, match="overlap"):
        eliminate_blocks(random_quadratic(1, 6, 2), blocks=torch.tensor([[0, 1], [1, 3]]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), number=st.integers(2, 6), others=st.integers(0, 4), size=st.integers(1, 3))
def test_blocks_that_two_maps_read_cost_what_both_lose(seed: int, number: int, others: int, size: int) -> None:
    """The second map has columns besides, which stay; its outputs count by what an error of each costs."""
    first = random_quadratic(seed, number * size, 3)
    second = random_quadratic(seed + 1, number + others, 2)
    losses = torch.tensor([0.5, 2.0], dtype=torch.float64)
    blocks = contiguous_blocks(number, size), torch.arange(number).reshape(-1, 1) + others
    parts = [
        SelectionPart.of(first, blocks=blocks[0]),
        SelectionPart.of(second, blocks=blocks[1], output_losses=losses),
    ]
    found = eliminate_jointly(parts, minimum_kept=0)
    total = 0.0
    for dropped in range(1, number + 1):
        total += found.increases[dropped - 1]
        kept = torch.tensor(found.kept(dropped, number), dtype=torch.long)
        here = minimum_on(first, blocks[0][kept].reshape(-1))
        there = minimum_on(second, torch.cat([torch.arange(others), blocks[1][kept].reshape(-1)]))
        expected = first.loss(here) - first.loss(first.minimum())
        for output, weight in enumerate(losses.tolist()):
            part = Quadratic(second.curvature, second.linear[:, [output]], 0.0)
            expected += weight * (part.loss(there[:, [output]]) - part.loss(part.minimum()))
        assert total == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_wide_maps_are_ranked_by_what_blocks_contribute() -> None:
    inputs, _, _, _ = linear_data(3, 600, 12, 4)
    targets = inputs[:, :8] @ torch.randn(8, 4, generator=torch.Generator().manual_seed(9))
    moments, prior = moments_of(inputs, targets), torch.zeros(12, 4, dtype=torch.float64)
    form = regularised_quadratic(moments, prior=prior, ridge=1e-6, intercept=True)
    blocks = contiguous_blocks(6, 2)
    found = select_blocks(moments, prior=prior, blocks=blocks, ridge=1e-6, intercept=True, full_selection_columns=4)
    assert not found.exact
    assert set(found.order[:2]) == {4, 5}
    # One factor per block has fewer degrees of freedom than a refit, so it never promises too little loss.
    kept = blocks[list(found.kept(3, 6))].reshape(-1)
    promised = form.loss(form.minimum()) + sum(found.increases[:3])
    assert form.loss(minimum_on(form, kept)) <= promised * (1 + 1e-9)
    exact = select_blocks(moments, prior=prior, blocks=blocks, ridge=1e-6, intercept=True)
    assert exact == eliminate_blocks(form, blocks=blocks)


def test_with_few_rows_blocks_are_ranked_on_the_old_weights() -> None:
    inputs, _, weights, _ = linear_data(13, 40, 30, 4)
    weights[:6] = 0
    found = select_blocks(
        moments_of(inputs, inputs @ weights.float()),
        prior=weights,
        blocks=contiguous_blocks(10, 3),
        ridge=1e-4,
        intercept=True,
    )
    assert not found.exact
    assert set(found.order[:2]) == {0, 1}
    assert max(found.increases[:2]) < 1e-6 * found.increases[2]


def test_contributions_leave_the_loss_of_whole_blocks_alone() -> None:
    form = random_quadratic(7, 9, 3)
    weights = form.minimum()
    blocks = contiguous_blocks(3, 3)
    reduced = block_contributions(form, weights=weights, blocks=blocks)
    factors = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    scaled = weights * factors.repeat_interleave(3)[:, None]
    assert reduced.loss(factors[:, None]) == pytest.approx(form.loss(scaled), rel=1e-8)


def test_moments_measure_the_error_of_any_map() -> None:
    inputs, targets, weights, bias = linear_data(2, 90, 5, 3)
    moments = moments_of(inputs, targets)
    direct = (targets.double() - inputs.double() @ weights - bias).square().sum(0)
    # A difference of float64 sums that are 3,000 times as large.
    assert torch.allclose(moments.squared_error(weights, bias), direct, rtol=1e-9, atol=0)


def test_a_refit_on_all_columns_is_ordinary_least_squares() -> None:
    inputs, targets, weights, bias = linear_data(4, 800, 6, 3, noise=0.0)
    found = refit_columns(split(inputs, targets), prior=weights, kept=torch.arange(6), intercept=True)
    assert found.method == "least-squares"
    assert torch.allclose(found.weights, weights, atol=5e-3)
    assert torch.allclose(found.bias, bias, atol=2e-2)
    assert found.relative_error < 1e-6


def test_dropped_columns_are_zero_and_the_rest_beats_leaving_them_alone() -> None:
    inputs, targets, weights, bias = linear_data(6, 1200, 8, 4)
    kept = torch.tensor([0, 1, 4, 5, 7])
    moments = split(inputs, targets)
    found = refit_columns(moments, prior=weights, kept=kept, intercept=True)
    assert not found.weights[[2, 3, 6]].any()
    cut = weights.clone()
    cut[[2, 3, 6]] = 0
    held_out = moments.held_out
    assert found.relative_error * 1.5 < float(
        held_out.squared_error(cut, bias).sum() / held_out.centred().target_square.sum()
    )


def test_few_noisy_rows_take_a_larger_ridge_than_many_clean_ones() -> None:
    clean = linear_data(8, 2000, 10, 2, noise=0.01)
    noisy = linear_data(8, 60, 10, 2, noise=30.0)
    ridges = [
        refit_columns(split(data[0], data[1]), prior=0 * data[2], kept=torch.arange(10), intercept=True).ridge
        for data in (clean, noisy)
    ]
    assert ridges[0] < ridges[1]


def test_too_few_rows_fall_back_to_scale_and_bias() -> None:
    inputs, targets, weights, _ = linear_data(9, 40, 10, 3)
    kept = torch.arange(9)
    found = refit_columns(split(inputs, 2 * targets), prior=weights, kept=kept, intercept=True)
    assert found.method == "scale-and-bias"
    factors = found.weights[kept] / weights[kept]
    assert torch.allclose(factors, factors[:1].expand_as(factors))
    more = linear_data(9, 60, 10, 3)
    assert refit_columns(split(more[0], more[1]), prior=weights, kept=kept, intercept=True).method == "least-squares"


def test_columns_that_carry_nothing_count_for_nothing() -> None:
    inputs, targets, weights, _ = linear_data(10, 60, 4, 3)
    inputs = torch.cat([inputs, torch.zeros(60, 30)], 1)
    prior = torch.cat([weights, torch.ones(30, 3, dtype=torch.float64)])
    found = refit_columns(split(inputs, targets), prior=prior, kept=torch.arange(34), intercept=True)
    assert found.method == "least-squares"
    assert found.relative_error < 0.05


def test_without_an_intercept_the_bias_stays_zero() -> None:
    inputs, targets, weights, _ = linear_data(11, 300, 5, 2)
    found = refit_columns(split(inputs, targets), prior=weights, kept=torch.arange(5), intercept=False)
    expected = torch.linalg.lstsq(inputs.double(), targets.double()).solution
    assert not found.bias.any()
    assert torch.allclose(found.weights, expected, rtol=0.02, atol=0.02)


def test_everything_dropped_leaves_the_mean() -> None:
    inputs, targets, weights, _ = linear_data(12, 100, 5, 2)
    found = refit_columns(split(inputs, targets), prior=weights, kept=torch.arange(0), intercept=True)
    assert not found.weights.any()
    assert torch.allclose(found.bias, targets.double().mean(0))
