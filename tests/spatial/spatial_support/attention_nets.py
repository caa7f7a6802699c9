"""Small nets of one attention, in the spellings that networks use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

SPELLINGS = ("fused", "chunked", "separate", "products", "scaled query", "by sequence", "library", "library weights")
MASKS = ("none", "causal", "boolean", "per head", "computed")
TOKENS = 5


@dataclass(frozen=True)
class Shape:
    """What an attention is like. ``value_width`` differs from ``width`` only where three layers are apart."""

    spelling: str = "fused"
    mask: str = "none"
    heads: int = 2
    width: int = 4
    value_width: int = 4
    bias: bool = True


class Attention(nn.Module):
    """Tokens [N, T, 6] through a layer, the attention, and a layer that reads it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        heads, queries, values = shape.heads, shape.heads * shape.width, shape.heads * shape.value_width
        self.embed = nn.Linear(6, 8 if not self.library else queries)
        inputs = self.embed.out_features
        if self.library:
            self.layer = nn.MultiheadAttention(queries, heads, bias=shape.bias, batch_first=True)
        elif shape.spelling == "separate":
            self.query, self.key = (nn.Linear(inputs, queries, bias=shape.bias) for _ in range(2))
            self.value = nn.Linear(inputs, values, bias=shape.bias)
        else:
            self.qkv = nn.Linear(inputs, 2 * queries + values, bias=shape.bias)
        if not self.library:
            self.project = nn.Linear(values, 7)
        self.head = nn.Linear(7 if not self.library else queries, 4)
        self.register_buffer("seen", torch.ones(TOKENS, TOKENS).tril(1).bool())
        self.register_buffer("offsets", torch.linspace(-1, 1, heads * TOKENS * TOKENS).reshape(heads, TOKENS, TOKENS))

    @property
    def library(self) -> bool:
        """Whether it is torch's own layer."""
        return self.shape.spelling.startswith("library")

    @property
    def output(self) -> nn.Linear:
        """The layer that reads the heads."""
        return self.layer.out_proj if self.library else self.project

    def rows(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weight and bias of queries, keys and values, as views (heads, width, inputs) and (heads, width)."""
        heads = self.shape.heads
        if self.shape.spelling == "separate":
            held = [(part.weight, part.bias) for part in (self.query, self.key, self.value)]
        else:
            weight = self.layer.in_proj_weight if self.library else self.qkv.weight
            bias = self.layer.in_proj_bias if self.library else self.qkv.bias
            sizes = [heads * self.shape.width] * 2 + [heads * self.shape.value_width]
            biases = bias.split(sizes) if bias is not None else [None] * 3
            held = list(zip(weight.split(sizes), biases, strict=True))
        for weight, bias in held:
            yield weight.view(heads, -1, weight.shape[1]), None if bias is None else bias.view(heads, -1)

    def _mask(self, tokens: torch.Tensor) -> torch.Tensor | None:
        if self.shape.mask == "boolean":
            return self.seen
        if self.shape.mask == "per head":
            return self.offsets
        if self.shape.mask == "computed":
            return tokens.mean(-1)[:, None, None, :]
        return None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(tokens))
        mask, causal = self._mask(tokens), self.shape.mask == "causal"
        if self.library:
            x = self.layer(x, x, x, need_weights=self.shape.spelling == "library weights")[0]
            return self.head(torch.relu(x).mean(1))
        return self.head(torch.relu(self.project(self._attend(x, mask, causal=causal))).mean(1))

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None, *, causal: bool) -> torch.Tensor:
        heads, samples, tokens = self.shape.heads, x.shape[0], x.shape[1]
        widths = [self.shape.width] * 2 + [self.shape.value_width]
        if self.shape.spelling == "fused":
            query, key, value = self.qkv(x).reshape(samples, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            if self.shape.spelling == "separate":
                flat = [self.query(x), self.key(x), self.value(x)]
            elif self.shape.spelling == "by sequence":
                flat = list(self.qkv(x.transpose(0, 1)).split([heads * width for width in widths], -1))
                flat = [part.contiguous().view(tokens, samples * heads, -1).transpose(0, 1) for part in flat]
                flat = [part.view(samples, heads, tokens, -1) for part in flat]
                joined = F.scaled_dot_product_attention(*flat, attn_mask=mask, is_causal=causal)
                return joined.permute(2, 0, 1, 3).reshape(tokens, samples, -1).transpose(0, 1)
            else:
                flat = list(self.qkv(x).chunk(3, -1))
            query, key, value = (part.view(samples, tokens, heads, -1).transpose(1, 2) for part in flat)
        if self.shape.spelling == "products":
            scores = query @ key.transpose(-2, -1) / self.shape.width**0.5
            scores = scores if mask is None else scores + mask
            return (scores.softmax(-1) @ value).transpose(1, 2).reshape(samples, tokens, -1)
        if self.shape.spelling == "scaled query":
            scores = (query * self.shape.width**-0.5) @ key.transpose(-2, -1)
            scores = scores if mask is None else scores + mask
            return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        joined = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return joined.transpose(1, 2).reshape(samples, tokens, -1)
