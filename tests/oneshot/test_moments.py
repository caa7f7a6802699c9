"""Second moments against sums over centred rows in float64, where float32 sums of the rows as they are cancel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio_pruner.refit import MomentAccumulator, Moments

torch.set_num_threads(1)

#: In whatever order a kernel adds, a sum of n terms errs by at most n 2^-53 of the sum of their absolute values. No sum
#: here has a thousand terms, and there are two sides.
ROUNDING = 2000 * 2.0**-53


def accumulated(inputs: torch.Tensor, targets: torch.Tensor, *, batch: int) -> Moments:
    accumulator = MomentAccumulator(columns=inputs.shape[1], outputs=targets.shape[1])
    for start in range(0, len(inputs), batch):
        accumulator.add(inputs[start : start + batch], targets[start : start + batch])
    return accumulator.moments()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    columns=st.sampled_from([1, 6, 127, 128, 129, 300]),
    rows=st.integers(2, 400),
    batch=st.integers(1, 150),
    means_over_spread=st.floats(0, 1e4),
)
def test_rows_far_from_zero_keep_their_second_moments(
    seed: int, columns: int, rows: int, batch: int, means_over_spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, columns, generator=generator) + means_over_spread
    weights = torch.randn(columns, 3, generator=generator)
    targets = inputs @ weights + torch.randn(rows, 3, generator=generator) + means_over_spread
    moments = accumulated(inputs, targets, batch=batch)
    about = moments.centred()
    x, t = inputs.double(), targets.double()
    centred_x, centred_t = x - x.mean(0), t - t.mean(0)
    scale_x, scale_t = x.square().sum(0).sqrt(), t.square().sum(0).sqrt()
    assert torch.equal(moments.gram, moments.gram.T)
    assert bool(((about.gram - centred_x.T @ centred_x).abs() <= ROUNDING * scale_x[:, None] * scale_x).all())
    assert bool(((about.cross - centred_x.T @ centred_t).abs() <= ROUNDING * scale_x[:, None] * scale_t).all())
    assert bool(((about.target_square - centred_t.square().sum(0)).abs() <= ROUNDING * scale_t.square()).all())
    bias = t.mean(0) - x.mean(0) @ weights.double()
    direct = (t - x @ weights.double() - bias).square().sum(0)
    lengths = scale_t + scale_x @ weights.double().abs()
    assert bool(((moments.squared_error(weights.double(), bias) - direct).abs() <= ROUNDING * lengths.square()).all())


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
def test_a_constant_column_is_dead_and_a_faint_one_alive(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 3, generator=generator) * 1e-4 * max(1.0, offset) + offset
    inputs[:, 1] = offset / 3
    moments = accumulated(inputs, inputs[:, :1], batch=64)
    assert moments.live_columns(intercept=True) == 2


def test_parts_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(90, 140, generator=generator) + 3, torch.randn(90, 2, generator=generator)
    whole = accumulated(inputs, targets, batch=90)
    parts = accumulated(inputs[:31], targets[:31], batch=10) + accumulated(inputs[31:], targets[31:], batch=10)
    assert parts.rows == whole.rows
    assert torch.allclose(parts.gram, whole.gram, rtol=1e-12)
    assert torch.allclose(parts.cross, whole.cross, rtol=1e-12, atol=1e-12)
