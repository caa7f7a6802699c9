"""One-shot pruning of transformers: heads in their own coordinates, then widths of values, of pairs and of MLPs."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.calibrating.linear_maps import linear_maps
from edgefolio_pruner.oneshot import OneShotResult, prune, prune_to_targets
from edgefolio_pruner.oneshot.attention.coordinates import in_own_coordinates
from edgefolio_pruner.spatial import attention_layers, capture, channel_groups, compress

if TYPE_CHECKING:
    from conftest import Digits


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, *, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.layers = nn.ModuleList(
            [nn.Linear(width, 3 * width)] if fused else [nn.Linear(width, width) for _ in "qkv"]
        )
        self.project, self.grow, self.shrink = (
            nn.Linear(width, width),
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        flat = self.layers[0](y).chunk(3, -1) if len(self.layers) == 1 else [layer(y) for layer in self.layers]
        split = [part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in flat]
        x = x + self.project(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return x + self.shrink(F.gelu(self.grow(self.norms[1](x))))


class Transformer(nn.Module):
    def __init__(self, *, width: int = 32, heads: int = 2, hidden: int = 64, fused: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        self.blocks = nn.Sequential(*[Block(width, heads, hidden, fused=fused) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


@pytest.fixture(scope="module")
def transformer(digits: Digits) -> nn.Module:
    torch.manual_seed(0)
    net = Transformer().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(6):
        for batch in torch.randperm(1297).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(digits.images[batch]), digits.labels[batch]).backward()
            optimizer.step()
    return net.eval()


def pruned(net: nn.Module, digits: Digits, percent: int = 50) -> OneShotResult:
    (result,) = prune_to_targets(
        module=net, calibration=digits.images[:256], macs_percents=[percent], seed=0, threads=1
    )
    return result


@pytest.mark.parametrize("fused", [True, False])
def test_heads_in_their_own_coordinates_are_the_same_net(fused: bool, digits: Digits) -> None:
    torch.manual_seed(1)
    net = Transformer(heads=4, fused=fused).double().eval()
    images = digits.images[:64].double()
    captured = capture(net, (images[:2],))
    layers = attention_layers(captured)
    assert [layer.heads for layer in layers] == [4, 4]
    graph, state = captured.graph_module.graph, captured.parameters
    with torch.no_grad():
        changed = in_own_coordinates(graph, state, images, linear_maps(graph, state)[0], layers, seed=0)
        expected, got = net(images), captured.with_state(changed).graph_module(images)
    assert not torch.equal(changed[layers[0].value.weight], state[layers[0].value.weight])
    # Inverses of matrices whose condition is at most the root of 1e5, twice.
    assert torch.allclose(expected, got, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_half_of_a_transformer_is_removed_exactly_and_hardly_missed(transformer: nn.Module, digits: Digits) -> None:
    result = pruned(transformer, digits)
    attention = {name: kept for name, kept in result.kept.items() if "layers" in name}
    assert len(attention) == 4
    assert any(kept < before for kept, before in attention.values())
    half = copy.deepcopy(transformer)
    half.load_state_dict(result.state)
    compressed = compress(capture(half.double(), (digits.images[:2].double(),)))
    with torch.no_grad():
        expected, got = half(digits.images[-200:].double()), compressed.module(digits.images[-200:].double())
    assert torch.allclose(expected, got, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    share = 100 * compressed.report.macs_after / compressed.report.macs_before
    assert share == pytest.approx(result.macs_percent_reached, abs=1e-6)
    assert result.reached
    # 500 test images: a point is five of them.
    assert digits.accuracy(half.float()) >= digits.accuracy(transformer) - 3


def test_own_coordinates_lose_less_than_those_of_training(
    transformer: nn.Module, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(result: OneShotResult) -> float:
        net = copy.deepcopy(transformer)
        net.load_state_dict(result.state)
        with torch.no_grad():
            return float((net(digits.images[-500:]) - transformer(digits.images[-500:])).square().mean())

    own = error(pruned(transformer, digits, 40))
    monkeypatch.setattr(prune, "in_own_coordinates", lambda _graph, state, *_, **__: state)
    assert own < error(pruned(transformer, digits, 40))


@pytest.mark.parametrize("percent", [10, 25])
def test_what_is_told_to_be_left_is_what_the_exact_pruning_leaves(
    percent: int, transformer: nn.Module, digits: Digits
) -> None:
    """Also where whole attention is gone, and with it the queries and keys that nothing weighs any more."""
    result = pruned(transformer, digits, percent)
    net = copy.deepcopy(transformer)
    net.load_state_dict(result.state)
    report = compress(capture(net, (digits.images[:2],))).report
    assert 100 * report.macs_after / report.macs_before == pytest.approx(result.macs_percent_reached, abs=1e-6)


def test_equal_inputs_give_equal_bytes(transformer: nn.Module, digits: Digits) -> None:
    first, second = pruned(transformer, digits), pruned(transformer, digits)
    assert all(torch.equal(tensor, second.state[name]) for name, tensor in first.state.items())


def test_a_transformer_without_anything_to_prune_is_refused_in_one_sentence(digits: Digits) -> None:
    torch.manual_seed(0)
    net = Transformer(width=8, heads=2, hidden=4).eval()
    with pytest.raises(UserError, match="no channels that the one-shot route can prune"):
        pruned(net, digits)


@cache
def _library() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, dropout=0.0)
    return nn.Sequential(nn.Conv2d(1, 16, 2, 2), nn.Flatten(2), _Tokens(), layer, _Pool(), nn.Linear(16, 10)).eval()


class _Tokens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


class _Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def test_layers_whose_samples_are_not_on_the_first_axis_are_left_and_named(digits: Digits) -> None:
    """torch's own attention runs with the tokens first: the exact pruning follows that, the one-shot route does not."""
    net = _library()
    assert all(group.prunable for group in channel_groups(capture(net, (digits.images[:2],))) if "attn" in group.name)
    result = pruned(net, digits, 80)
    reasons = {name: reason for name, reason in result.left_out.items() if "attn" in name}
    assert set(reasons.values()) <= {
        "its reader does not have the samples on axis 0",
        "queries and keys that other operators than linear layers write or read",
        "operator aten.layer_norm.default",
    }
    assert result.kept["3.linear1"][0] < 32
