"""Attention with fewer heads, narrower queries than values and a scale of its own, in the exported file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgefolio_pruner.export import export_onnx
from edgefolio_pruner.spatial import capture, compress


class Tokens(nn.Module):
    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask = mask
        self.patches, self.qkv, self.project, self.head = (
            nn.Conv2d(1, 12, 2, 2),
            nn.Linear(12, 36),
            nn.Linear(12, 12),
            nn.Linear(12, 5),
        )
        self.register_buffer("offsets", torch.linspace(-2, 2, 3 * 16 * 16).reshape(3, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(tokens).reshape(-1, 16, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = self.offsets if self.mask == "per head" else None
        joined = F.scaled_dot_product_attention(query, key, value, mask, is_causal=self.mask == "causal")
        return self.head(torch.relu(self.project(joined.transpose(1, 2).reshape(-1, 16, 12))).mean(1))


@pytest.mark.parametrize("mask", ["none", "causal", "per head"])
def test_narrowed_attention_computes_the_same_in_onnxruntime(mask: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tokens(mask).eval()
    with torch.no_grad():
        for head in range(3):
            module.qkv.weight[4 * head : 4 * head + 2] = 0
            module.qkv.bias[4 * head : 4 * head + 2] = 0
        module.project.weight[:, 4:8] = 0
    images = torch.randn(7, 1, 8, 8)
    compressed = compress(capture(module, (images[:2],)))
    # Two of three heads, two pairs each, four channels of the value each.
    assert {layer.name: layer.after for layer in compressed.report.layers}["qkv"] == 2 * (2 + 2 + 4)
    path = tmp_path / "model.onnx"
    export_onnx(compressed.module, (images[:2],), path, input_names=("input",), output_names=("logits",))
    (got,) = onnxruntime.InferenceSession(path).run(None, {"input": images.numpy()})
    with torch.no_grad():
        expected = module(images).numpy()
    # float32 sums of at most a few dozen terms.
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))
