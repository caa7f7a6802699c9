"""The networks of the benchmark, each with the recipe that trains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from edgefolio.specification.making import Architecture
from edgefolio_pruner.training.determinism import Precision

PIXELS, SIZE_OPTIONS = 28, {"in_channels": 1, "num_classes": 10}
#: Expansion, channels, blocks and stride of each stage: MobileNetV2 without its last stage, for 28 x 28 pixels.
MOBILENET_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 1), (6, 96, 2, 2), (6, 160, 1, 1))


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network, its optimizer's settings, and how its training computes.

    ``precision`` is that of the training step alone: on a processor with AVX512-BF16 (Zen 4, torch 2.10, one thread)
    bfloat16 halves the time of a plain convolution's step and doubles that of a depthwise one's.
    """

    title: str
    architecture: Architecture
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    rate: float = 0.05
    weight_decay: float = 5e-4
    precision: Precision = "bfloat16"
    augmentation: Literal["Flip", "FlipCrop"] = "Flip"


def mobilenet_v2(*, width_percent: int = 50) -> nn.Module:
    """MobileNetV2 of torchvision for one channel of 28 x 28 pixels: five stages, a stem that keeps the size."""
    from torchvision.models.mobilenetv2 import MobileNetV2

    stages = [list(stage) for stage in MOBILENET_STAGES]
    net: Any = MobileNetV2(
        num_classes=10, width_mult=width_percent / 100, inverted_residual_setting=stages, dropout=0.0
    )
    net.features[0][0] = nn.Conv2d(1, net.features[0][0].out_channels, 3, 1, 1, bias=False)
    module: nn.Module = net
    return module


def _builtin(name: str, width: int) -> Architecture:
    return Architecture(library="edgefolio", name=name, options={"width": width, **SIZE_OPTIONS})


#: In the order in which they are trained.
NETS: Mapping[str, Net] = {
    "resnet8": Net(title="ResNet-8 width 32", architecture=_builtin("resnet8", 32)),
    "vgg11": Net(title="VGG-11 width 32", architecture=_builtin("vgg11", 32)),
    "resnet20": Net(title="ResNet-20 width 16", architecture=_builtin("resnet20", 16)),
    "mobilenetv2": Net(
        title="MobileNetV2 width 0.5",
        architecture=Architecture(
            library="factory", name="benchmarks.variants.nets:mobilenet_v2", options={"width_percent": 50}
        ),
        precision="float32",
    ),
    "vit": Net(
        title="DeiT-like ViT (width 128, 4 heads, 6 blocks)",
        architecture=Architecture(
            library="timm",
            name="deit_tiny_patch16_224",
            options={
                "img_size": PIXELS,
                "patch_size": 4,
                "in_chans": 1,
                "num_classes": 10,
                "embed_dim": 128,
                "num_heads": 4,
                "depth": 6,
            },
        ),
        optimizer="AdamW",
        rate=1e-3,
        weight_decay=5e-2,
        precision="float32",
        augmentation="FlipCrop",
    ),
}
