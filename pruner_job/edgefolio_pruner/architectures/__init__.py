"""Built-in networks: small ones for small images, with a width option and no download.

| name | network | options |
|---|---|---|
| ``resnet8``, ``resnet20``, ``resnet56`` | residual net in the CIFAR style, three stages | ``width`` (16) |
| ``vgg11``, ``vgg16`` | plain convolutions with batch norm, four max-pools and a mean | ``width`` (64) |
| ``cnn`` | three convolutions and a linear layer | ``width`` (16) |
| ``mlp`` | two hidden linear layers | ``width`` (64), ``image_size`` (8) |

Every one takes ``num_classes`` (10) and ``in_channels`` (3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from edgefolio_pruner.architectures.resnet import resnet8, resnet20, resnet56
from edgefolio_pruner.architectures.small import cnn, mlp
from edgefolio_pruner.architectures.vgg import vgg11, vgg16

#: Built-in architectures by name.
BUILTIN: Mapping[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "mlp": mlp,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet56": resnet56,
    "vgg11": vgg11,
    "vgg16": vgg16,
}

__all__ = ["BUILTIN", "cnn", "mlp", "resnet8", "resnet20", "resnet56", "vgg11", "vgg16"]
