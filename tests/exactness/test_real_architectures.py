"""Twelve real architectures with dead channels of every kind: compressed exactly, and the check has teeth."""

from __future__ import annotations

import pytest
import torch
from exactness_support.check import assert_mutation_is_noticed, assert_removed_as_the_oracle_says, compress_exactly
from exactness_support.damage import damage
from exactness_support.trained import look_trained
from torch import nn

from edgefolio_pruner.model_source.loading import build_architecture, parse_architecture

#: Name, side of the input image, and whether the oracle is asked (its experiments take long on deep nets).
ARCHITECTURES = [
    ("timm:resnet18", 32, True),
    ("edgefolio:vgg11", 32, True),
    ("timm:densenet121", 32, False),
    ("timm:mobilenetv2_050", 32, False),
    ("timm:mobilenetv3_small_050", 32, False),
    ("timm:tf_efficientnet_b0", 32, False),
    ("timm:regnety_002", 32, False),
    ("torchvision:shufflenet_v2_x0_5", 32, True),
    ("torchvision:squeezenet1_1", 48, True),
    ("timm:convnext_atto", 32, False),
    ("timm:ghostnet_050", 32, False),
    ("timm:mobilevit_xxs", 64, False),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "size", "ask_oracle"), ARCHITECTURES, ids=[entry[0] for entry in ARCHITECTURES])
def test_real_architectures_are_compressed_exactly(name: str, size: int, ask_oracle: bool) -> None:
    module = build_architecture(parse_architecture(name, ["num_classes=10"]))
    samples = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(1))
    look_trained(module, samples, seed=1)
    done = damage(module, samples, seed=2, keep=_classifier(module))
    captured, compressed = compress_exactly(module, samples)
    report = compressed.report
    assert report.parameters_after < 0.95 * report.parameters_before
    assert report.macs_after < report.macs_before
    assert report.channels_removed > 0.5 * done.dead_filters
    assert assert_mutation_is_noticed(module, captured, samples)
    if ask_oracle:
        freed = assert_removed_as_the_oracle_says(module, report, samples)
        assert freed > 0


def _classifier(module: nn.Module) -> nn.Module:
    return [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv2d))][-1]
