"""Networks written as ONNX by three exporters and read again: the same answers, names, and channels that can go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from onnx_graphs import exported, model, node, written
from torch import nn

from edgefolio_pruner.architectures import BUILTIN
from edgefolio_pruner.onnx_source.model_file import read_model_file
from edgefolio_pruner.spatial import capture, compress


class Residual(nn.Module):
    """A block as MobileNets have it: depthwise, squeeze-excite, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.widened = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.squeezed, self.excited = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.narrowed = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.depthwise(self.widened(x))
        factor = self.excited(self.squeezed(inner.mean((2, 3), keepdim=True)).relu())
        return x + self.narrowed(inner * nn.functional.hardsigmoid(factor))


class Attending(nn.Module):
    """Two tokens' worth of a transformer: a token in front, positions, attention by products, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.norm, self.projected, self.joined = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        batch, tokens, width = x.shape
        query, key, value = self.projected(self.norm(x)).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * (width // 2) ** -0.5).softmax(dim=-1)
        x = x + self.joined((weights @ value).transpose(1, 2).reshape(batch, tokens, width))
        return self.head((x + self.mlp(x))[:, 0])


def upsampled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=2), nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(8, 4, 2, 2), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 8 * 8, 3),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
        (3, 8, 8),
    ),
    "attending": (Attending, (1, 8, 8)),
    "upsampled": (upsampled, (2, 8, 8)),
    "resnet8": (lambda: BUILTIN["resnet8"](width=4), (3, 16, 16)),
}  # fmt: skip


def planted(module: nn.Module) -> nn.Module:
    """``module`` with norms that do something and every fourth filter empty."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
        layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
        for layer in layers[:-1]:
            emptied = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            emptied[::4] = 0
            if layer.bias is not None:
                layer.bias[::4] = 0
    return module.eval()


def removed(module: nn.Module, samples: torch.Tensor) -> list[tuple[int, int]]:
    found = compress(capture(module, (samples,)))
    return sorted((layer.before, layer.after) for layer in found.report.layers)


WAYS = [("residual", "new 1"), ("attending", "old 1"), ("attending", "new 1"), ("upsampled", "old"), ("resnet8", "own")]


@pytest.mark.parametrize(("name", "by"), WAYS)
def test_a_network_and_back(name: str, by: str, tmp_path: Path) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = planted(make())
    path = exported(module, shape, tmp_path / "model.onnx", by=by)
    built = read_model_file(path, field="--model").proven(shape).build().eval()
    samples = torch.randn((3, *shape))
    with torch.no_grad():
        wanted, found = module(samples), built(samples)
    assert isinstance(found, torch.Tensor)
    assert torch.allclose(wanted, found, atol=1e-5 * float(wanted.abs().max()))
    before = removed(module, samples[:2])
    assert removed(built, samples[:2]) == before
    assert sum(after for _, after in before) < sum(all_of for all_of, _ in before)


def test_names_and_shared_weights(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.shared(self.shared(x).relu()).mean((2, 3)))

    module = Twice()
    path = exported(module, (2, 6, 6), tmp_path / "model.onnx", by="old")
    network = read_model_file(path, field="--model").network
    assert {name for name, _ in network.named_parameters()} == {name for name, _ in module.named_parameters()}
    assert sum(one.numel() for one in network.parameters()) == sum(one.numel() for one in module.parameters())


def test_it_can_be_trained(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2))
    path = exported(module.train(), (1, 6, 6), tmp_path / "model.onnx", by="own")
    network = read_model_file(path, field="--model").build()
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    answers = network(torch.randn(8, 1, 6, 6))
    assert isinstance(answers, torch.Tensor)
    nn.functional.cross_entropy(answers, torch.arange(8) % 2).backward()
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_layers_named_like_attributes_of_modules(tmp_path: Path) -> None:
    constants = {f"{name}.weight": torch.randn(4, 4).numpy() for name in ("train", "forward", "file_input", "a", "a.b")}
    nodes, last = [], "x"
    for number, name in enumerate(constants):
        nodes.append(node("Gemm", last, name, out=f"v{number}", transB=1))
        last = f"v{number}"
    nodes.append(node("Relu", last))
    file = read_model_file(written(model(nodes, ("n", 4), constants), tmp_path / "model.onnx"), field="--model")
    assert len(list(file.proven((4,)).network.parameters())) == len(constants)
