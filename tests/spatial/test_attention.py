"""Attention loses heads, channels of values and pairs of queries and keys, exactly and down to what is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from spatial_support.attention_nets import MASKS, SPELLINGS, TOKENS, Attention, Shape
from spatial_support.nets import after, lively, shrink, silence
from torch import nn

from edgefolio_pruner.spatial import capture, channel_groups, compress


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    spelling = draw(st.sampled_from(SPELLINGS))
    masks = MASKS
    if spelling in ("products", "scaled query"):
        masks = ("none", "per head", "computed")
    elif spelling.startswith("library"):
        masks = ("none",)
    width = draw(st.integers(1, 5))
    return Shape(
        spelling=spelling,
        mask=draw(st.sampled_from(masks)),
        heads=draw(st.integers(1, 4)),
        width=width,
        value_width=draw(st.integers(1, 5)) if spelling == "separate" else width,
        bias=draw(st.booleans()),
    )


def damage(net: Attention, rng: np.random.Generator) -> int:
    """Make rows and columns dead in every way; how many rows of queries, keys and values must then be left."""
    shape = net.shape
    dead, constant = (
        [
            torch.from_numpy(rng.random((shape.heads, width)) < share)
            for width in (*[shape.width] * 2, shape.value_width)
        ]
        for share in (0.25, 0.25)
    )
    unread = torch.from_numpy(rng.random((shape.heads, shape.value_width)) < 0.25)
    unread[torch.from_numpy(rng.random(shape.heads) < 0.25)] = True
    with torch.no_grad():
        for (weight, bias), zero, fixed in zip(net.rows(), dead, constant, strict=True):
            weight[zero | fixed] = 0
            if bias is not None:
                bias[zero] = 0
        net.output.weight.view(-1, shape.heads, shape.value_width)[:, unread] = 0
    value_stays = ~(dead[2] | unread)
    if shape.mask != "computed" or not shape.bias:
        # Behind a computed mask nobody knows that weights add up to one, so a constant need not stay one.
        value_stays &= ~constant[2]
    # A query of zero, and a key that is the same for all, do not change how a head weighs.
    query_is_zero = dead[0] | (constant[0] if not shape.bias else torch.zeros_like(dead[0]))
    pairs = ~(query_is_zero | dead[1] | constant[1]) & value_stays.any(1)[:, None]
    heads = int(value_stays.any(1).sum())
    width = max(1, int(pairs.sum(1).max())) if heads else 0
    return heads * (2 * width + max(1, int(value_stays.sum(1).max())))


@pytest.mark.parametrize(
    ("shard", "examples"),
    [(0, 10), *(pytest.param(shard, 25, marks=[pytest.mark.slow, pytest.mark.timeout(900)]) for shard in range(1, 5))],
)
def test_generated_attention_is_compressed_exactly_and_to_what_is_needed(shard: int, examples: int) -> None:
    removed: list[int] = []

    @seed(shard)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(shapes(), st.integers(0, 1000))
    def check(shape: Shape, number: int) -> None:
        torch.manual_seed(number)
        net = lively(Attention(shape))
        if net.library and shape.bias:
            nn.init.normal_(net.layer.in_proj_bias)
        expected = damage(net, np.random.default_rng(number))
        compressed = shrink(net, (TOKENS, 6))
        assert compressed.report.barriers == ()
        others = ("embed", "head", "layer.out_proj", "project")
        rows = sum(count for name, count in after(compressed).items() if name not in others)
        assert rows == expected
        removed.append(shape.heads * (2 * shape.width + shape.value_width) - rows)

    check()
    assert sum(count > 0 for count in removed) >= 0.7 * len(removed)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_head_that_nobody_reads_goes_and_the_scale_stays(spelling: str) -> None:
    net = lively(Attention(Shape(spelling=spelling, heads=3)))
    with torch.no_grad():
        net.output.weight[:, 4:8] = 0
        # One pair of the first head: heads stay equally wide, so it stays, as it was.
        for weight, bias in list(net.rows())[:2]:
            weight[0, 1] = 0
            assert bias is not None
            bias[0, 1] = 0
    compressed = shrink(net, (TOKENS, 6))
    assert sum(count for name, count in after(compressed).items() if "head" not in name and "out" not in name) == (
        (12 if net.library else 8) + 2 * 12 + (0 if net.library else 7)
    )


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_a_group_names_is_removed_once_its_writers_are_zero(spelling: str) -> None:
    net = lively(Attention(Shape(spelling=spelling, heads=2, width=4)))
    captured = capture(net, (torch.randn(2, TOKENS, 6, dtype=torch.float64),))
    inside = ("qkv", "query", "value", "layer.in")
    writers = [group for group in channel_groups(captured) if group.writers[0].parameter.startswith(inside)]
    assert [(group.channels, group.prunable, len(group.readers)) for group in writers] == [(4, True, 0), (4, True, 1)]
    state = captured.parameters
    for group in writers:
        for part in group.writers:
            positions = torch.tensor([index for channel in (1, 3) for index in part.indices[channel]])
            state[part.parameter].index_fill_(part.axis, positions, 0)
    report = compress(captured.with_state(state)).report
    assert sum(layer.before - layer.after for layer in report.layers) == 2 * 2 * 3


class _Odd(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed, self.qkv, self.project = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        query, key, value = self.qkv(x).reshape(-1, TOKENS, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None
        if self.kind == "norm of heads":
            query, key = self.norm(query), self.norm(key)
        elif self.kind == "mask computed per head":
            mask = query @ key.transpose(-2, -1)
        elif self.kind == "weights that are read":
            weights = (query @ key.transpose(-2, -1)).softmax(-1)
            return self.project((weights @ value).transpose(1, 2).flatten(2)) + weights.mean((1, 2, 3))[:, None, None]
        elif self.kind == "scores that are rounded":
            scores = torch.div(query @ key.transpose(-2, -1), 0.5, rounding_mode="floor")
            return self.project((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        elif self.kind == "scores and truth values":
            scores = query @ key.transpose(-2, -1) + (torch.arange(TOKENS) > 1)
            return self.project((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        elif self.kind == "heads that are mixed":
            value = value + value.flip(1)
        return self.project(F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("norm of heads", "attention whose heads cannot be followed"),
        ("mask computed per head", "attention with a computed mask for each head"),
        ("weights that are read", "operator aten.matmul.default"),
        ("heads that are mixed", "attention whose heads cannot be followed"),
        ("scores that are rounded", "operator aten.matmul.default"),
        ("scores and truth values", "operator aten.matmul.default"),
    ],
)
def test_what_cannot_be_followed_is_a_barrier_and_named(kind: str, reason: str) -> None:
    net = lively(_Odd(kind))
    silence(net.qkv, [0, 1, 17, 20], bias=0.0)
    with torch.no_grad():
        net.project.weight[:, 4:] = 0
    compressed = shrink(net, (TOKENS, 6))
    assert reason in [barrier.reason for barrier in compressed.report.barriers]
    assert after(compressed)["qkv"] == 24


def test_attention_that_nobody_reads_beside_a_value_that_somebody_does() -> None:
    class Beside(Attention):
        def _attend(self, x: torch.Tensor, mask: torch.Tensor | None, *, causal: bool) -> torch.Tensor:
            split = [layer(x).view(-1, TOKENS, 2, 4).transpose(1, 2) for layer in (self.query, self.key)]
            value = self.value(x)
            joined = F.scaled_dot_product_attention(*split, value.view(-1, TOKENS, 2, 4).transpose(1, 2))
            return value + self.side(joined.transpose(1, 2).flatten(2))

        def __init__(self) -> None:
            super().__init__(Shape(spelling="separate"))
            self.side = nn.Linear(8, 8)

    net = lively(Beside())
    with torch.no_grad():
        net.side.weight.zero_()
    layers = after(shrink(net, (TOKENS, 6)))
    assert layers["value"] == 8
    assert layers["query"] == layers["key"]


def test_a_constant_value_goes_through_but_an_image_does_not() -> None:
    class Positions(Attention):
        def __init__(self) -> None:
            super().__init__(Shape(spelling="separate"))
            self.places = nn.Parameter(torch.randn(TOKENS, 8))

        def _attend(self, x: torch.Tensor, mask: torch.Tensor | None, *, causal: bool) -> torch.Tensor:
            split = [part.view(-1, TOKENS, 2, 4).transpose(1, 2) for part in (self.query(x), self.key(x))]
            value = (self.value(x) + self.places).view(-1, TOKENS, 2, 4).transpose(1, 2)
            return F.scaled_dot_product_attention(*split, value).transpose(1, 2).flatten(2)

    net = lively(Positions())
    silence(net.value, [1, 5], bias=0.0)
    with torch.no_grad():
        net.places[:, 5] = 0.5
    silence(net.value, [6], bias=0.25)
    with torch.no_grad():
        net.places[:, 6] = 0.0
    # Of the first head all stay (1 is an image that differs by position), so the second keeps as many.
    assert after(shrink(net, (TOKENS, 6)))["value"] == 8
    with torch.no_grad():
        net.places[:, 1] = 0.0
        net.value.weight[2] = 0
        net.places[:, 2] = 0.0
    assert after(shrink(net, (TOKENS, 6)))["value"] == 4
