"""Building small nets, making channels dead, and checking that compression changes nothing."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils import _pytree as pytree

from edgefolio_pruner.spatial import Compressed, capture, compress

BOUND = 1e-9


def lively(module: nn.Module) -> nn.Module:
    """The module in float64 and evaluation mode, with statistics, scales and biases unlike the defaults."""
    generator = torch.Generator().manual_seed(7)
    module.double()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.3)
                part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
                if part.affine:
                    part.weight.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
                    part.bias.copy_(torch.randn(part.num_features, generator=generator))
            elif isinstance(getattr(part, "bias", None), torch.Tensor):
                part.bias.copy_(torch.randn(part.bias.shape, generator=generator))  # type: ignore[union-attr, operator]
    return module.eval()


def silence(layer: nn.Module, channels: list[int], *, bias: float | None = None) -> None:
    """Zero the filters of ``channels``; their bias becomes ``bias`` if given."""
    with torch.no_grad():
        layer.weight[channels] = 0  # type: ignore[index, operator]
        if bias is not None:
            layer.bias[channels] = bias  # type: ignore[index, operator]


def zero_norm(norm: nn.Module, channels: list[int], *, shift: float = 0.0) -> None:
    """Zero scale and set shift of ``channels``."""
    with torch.no_grad():
        norm.weight[channels] = 0  # type: ignore[index, operator]
        norm.bias[channels] = shift  # type: ignore[index, operator]


def flat(outputs: object) -> torch.Tensor:
    """All outputs as one vector."""
    return torch.cat([leaf.reshape(-1) for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)])


def difference(
    module: nn.Module, compressed: Compressed, *shapes: tuple[int, ...], batches: tuple[int, ...] = (1, 3)
) -> float:
    """Largest difference of the outputs on random inputs, relative to the largest output."""
    worst = 0.0
    for batch in batches:
        inputs = [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]
        with torch.no_grad():
            expected, got = module(*inputs), compressed.module(*inputs)
        assert pytree.tree_structure(expected) == pytree.tree_structure(got)
        assert flat(expected).shape == flat(got).shape
        worst = max(worst, float((flat(expected) - flat(got)).abs().max() / flat(expected).abs().max()))
    return worst


def shrink(module: nn.Module, *shapes: tuple[int, ...]) -> Compressed:
    """Compress ``module`` (float64) and check that the outputs stay."""
    compressed = compress(capture(module, tuple(torch.randn(2, *shape, dtype=torch.float64) for shape in shapes)))
    assert difference(module, compressed, *shapes) <= BOUND
    return compressed


def after(compressed: Compressed) -> dict[str, int]:
    """Channels that each layer keeps."""
    return {layer.name: layer.after for layer in compressed.report.layers}
