"""One-shot pruning of degenerate nets on degenerate samples: a variant or one error, never a traceback."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.oneshot import prune_to_targets
from edgefolio_pruner.refit import NotFiniteError, refit_columns, select_blocks
from edgefolio_pruner.refit.factor import cholesky
from edgefolio_pruner.refit.moments import MomentAccumulator, SplitMoments

torch.set_num_threads(1)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    ).eval()


def noise() -> torch.Tensor:
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


SAMPLES = {
    "equal": torch.ones(64, 1, 8, 8),
    "zero": torch.zeros(64, 1, 8, 8),
    "two kinds": noise()[:2].repeat(32, 1, 1, 1),
    "tiny": noise() * 1e-30,
    "large": noise() * 1e12,
    "noise": noise(),
}


def changed(kind: str) -> nn.Sequential:
    module = net()
    with torch.no_grad():
        if kind == "zero":
            for tensor in module.parameters():
                tensor.zero_()
        elif kind == "zero with biases":
            for name, tensor in module.named_parameters():
                if tensor.ndim > 1:
                    tensor.zero_()
                del name
        elif kind == "huge":
            module[3].weight.mul_(1e15)
        elif kind == "no variance":
            module[1].running_var.zero_()
        elif kind == "equal filters":
            module[3].weight[:] = module[3].weight[:1]
        elif kind == "dead layer":
            module[0].bias.fill_(-1e3)
            module[1].running_mean.fill_(1e3)
    return module


@pytest.mark.parametrize("samples", sorted(SAMPLES))
@pytest.mark.parametrize(
    "weights", ["as they are", "zero", "zero with biases", "huge", "no variance", "equal filters", "dead layer"]
)
def test_a_variant_or_one_error(weights: str, samples: str) -> None:
    module = changed(weights)
    before = copy.deepcopy(module.state_dict())
    try:
        (result,) = prune_to_targets(
            module=module, calibration=SAMPLES[samples], macs_percents=(50,), seed=0, threads=1
        )
    except UserError as error:
        problem = error.problem
    else:
        problem = ""
    if problem:
        assert "not finite" in problem
        return
    for tensor in result.state.values():
        assert bool(torch.isfinite(tensor).all())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert result.macs_percent_reached <= 51


def test_a_negative_running_variance_is_one_error() -> None:
    module = net()
    module[4].running_var[3] = -2
    with pytest.raises(UserError, match=r"not finite.*negative running variance") as caught:
        prune_to_targets(module=module, calibration=noise(), macs_percents=(50,), seed=0, threads=1)
    assert caught.value.field == "spec.source.weightsURI"


def test_factors_of_matrices_that_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    good = half.T @ half
    assert torch.equal(cholesky(good), torch.linalg.cholesky(good))
    for scale in (1.0, 1e-200, 1e200):
        singular = scale * half[:3].T @ half[:3]
        factor = cholesky(singular)
        assert torch.allclose(factor @ factor.T, singular, atol=float(singular.abs().max()) * 1e-6)
    assert torch.isfinite(cholesky(torch.zeros(4, 4, dtype=torch.float64))).all()
    indefinite = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert (cholesky(torch.stack([good[:2, :2], indefinite])).diagonal(dim1=1, dim2=2) > 0).all()
    with pytest.raises(NotFiniteError):
        cholesky(torch.tensor([[1.0, float("nan")], [float("nan"), 1.0]]))


def test_selection_and_refit_of_equal_columns() -> None:
    inputs = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 6)
    prior = torch.ones(6, 2, dtype=torch.float64)
    sums = MomentAccumulator(columns=6, outputs=2)
    sums.add(inputs, inputs.double() @ prior)
    blocks = torch.arange(6).reshape(3, 2)
    order = select_blocks(sums.moments(), prior=prior, blocks=blocks, ridge=0.0, intercept=True)
    assert sorted(order.order) != []
    fit = refit_columns(
        SplitMoments(fit=sums.moments(), held_out=sums.moments()),
        prior=prior,
        kept=torch.tensor([0, 1]),
        intercept=True,
    )
    assert torch.isfinite(fit.weights).all()
    assert fit.relative_error < 1e-3
