"""Which modules are layers, and the channels of what they receive and give."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

#: A change below this share of a tensor's largest value is rounding (float64).
TOLERANCE = 1e-11


def is_layer(part: nn.Module) -> bool:
    """A convolution or linear layer over channels (a one-channel 1-D convolution slides along the channels: glue)."""
    if isinstance(part, nn.Conv1d) and part.in_channels == 1:
        return False
    return isinstance(part, _ConvNd | nn.Linear)


def width_of(part: nn.Module) -> int:
    """The layer's output channels."""
    return int(part.out_features if isinstance(part, nn.Linear) else part.out_channels)  # type: ignore[arg-type]


def axis(part: nn.Module, tensor: torch.Tensor) -> int:
    """Where ``tensor``, which the layer receives or gives, holds the channels."""
    return tensor.ndim - 1 if isinstance(part, nn.Linear) else 1


def has_zero_padding(part: nn.Module) -> bool:
    """Whether the layer sees zeros beyond the edge of an image."""
    if isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return True
    if not isinstance(part, _ConvNd) or part.padding_mode != "zeros":
        return False
    return part.padding == "same" or (part.padding != "valid" and any(part.padding))


def channels_first(part: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """``[samples, channels, positions]``."""
    moved = tensor.movedim(axis(part, tensor), 1)
    return moved.reshape(moved.shape[0], moved.shape[1], -1)


def varying(part: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """For each channel: whether it differs between the samples."""
    flat = channels_first(part, tensor)
    scale = float(flat.abs().max())
    return (flat - flat[:1]).abs().amax(dim=(0, 2)) > TOLERANCE * scale
