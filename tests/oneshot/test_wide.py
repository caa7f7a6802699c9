"""Maps too wide for a Gram matrix: ranked and re-fitted without one, as with one as far as they must."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgefolio_pruner.oneshot import cascade, prune_to_targets
from edgefolio_pruner.refit import (
    ContributionAccumulator,
    MomentAccumulator,
    ScaleAccumulator,
    SplitMoments,
    eliminate_jointly,
    refit_columns,
    selection_parts,
)

torch.set_num_threads(1)


def data(rows: int, columns: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(rows, columns, generator=generator) + 1
    weights = torch.randn(columns, outputs, generator=generator, dtype=torch.float64)
    return inputs, weights, inputs.double() @ weights + torch.randn(rows, outputs, generator=generator)


def test_one_factor_and_offset_is_what_the_gram_matrix_gives() -> None:
    inputs, weights, targets = data(40, 12, 3)
    held_out = torch.arange(40) % 4 == 3
    kept = torch.tensor([0, 2, 3, 7, 11])
    wide = ScaleAccumulator(weights[kept])
    parts = {name: MomentAccumulator(columns=5, outputs=3) for name in (False, True)}
    for name in (False, True):
        rows = held_out == name
        wide.add(inputs[rows][:, kept], targets[rows], held_out=name)
        parts[name].add(inputs[rows][:, kept], targets[rows])
    expected = refit_columns(
        SplitMoments(fit=parts[False].moments(), held_out=parts[True].moments()),
        prior=weights[kept],
        kept=torch.arange(5),
        intercept=True,
        min_rows_per_column=100,
    )
    found = wide.refit(intercept=True)
    assert expected.method == found.method == "scale-and-bias"
    assert torch.allclose(found.weights, expected.weights, rtol=1e-9)
    assert torch.allclose(found.bias, expected.bias, rtol=1e-9)
    assert found.relative_error == pytest.approx(expected.relative_error, rel=1e-9)


def test_ranks_are_those_of_the_gram_matrix() -> None:
    inputs, weights, targets = data(30, 24, 5)
    blocks = torch.arange(24).reshape(8, 3)
    losses = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    moments = MomentAccumulator(columns=24, outputs=5)
    moments.add(inputs, inputs.double() @ weights)
    (expected,) = selection_parts(
        moments.moments(), prior=weights, blocks=blocks, ridge=1e-9, intercept=True, output_losses=[losses / 30]
    )
    assert not expected.exact
    wide = ContributionAccumulator(weights, blocks=blocks, output_losses=losses, seed=0)
    for batch in inputs.split(7):
        wide.add(batch)
    found, wanted = eliminate_jointly([wide.part(intercept=True)]), eliminate_jointly([expected])
    assert found.order == wanted.order
    assert not found.exact
    # Contributions are float32 products.
    assert found.increases == pytest.approx(wanted.increases, rel=1e-3)
    del targets


def test_a_net_with_such_a_layer_is_pruned_without_its_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 12), nn.ReLU(), nn.Linear(12, 4)
    ).eval()
    monkeypatch.setattr(cascade, "GRAM_COLUMNS", 200)
    sizes: list[int] = []
    collect = cascade.collect_moments

    def watched(linear, **arguments):  # type: ignore[no-untyped-def]
        sizes.append(linear.columns)
        return collect(linear, **arguments)

    monkeypatch.setattr(cascade, "collect_moments", watched)
    samples = torch.randn(64, 1, 6, 6)
    (result,) = prune_to_targets(module=net, calibration=samples, macs_percents=(60,), seed=0, threads=1)
    assert result.kept["0"][0] < 16
    assert max(sizes) <= 200
    assert any("too wide" in note for note in result.notes)
    by_layer = {residual.layer: residual for residual in result.residuals}
    assert by_layer["3"].method == "scale-and-bias"
