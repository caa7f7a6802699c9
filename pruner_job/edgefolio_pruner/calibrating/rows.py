"""Calibration rows: im2col patches of a reader's input at sampled positions, and its outputs there."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgefolio_pruner.calibrating.linear_maps import Geometry


def sampled_positions(samples: int, positions: int, wanted_rows: int, *, generator: torch.Generator) -> torch.Tensor:
    """[samples, p] positions out of ``positions`` per sample, without repetition, about ``wanted_rows`` in all."""
    per_sample = min(positions, max(1, -(-wanted_rows // max(1, samples))))
    if per_sample == positions:
        return torch.arange(positions).expand(samples, positions)
    return torch.rand(samples, positions, generator=generator).argsort(1)[:, :per_sample]


def input_rows(
    inputs: torch.Tensor, positions: torch.Tensor, channels: torch.Tensor, geometry: Geometry | None
) -> torch.Tensor:
    """The im2col rows at ``positions`` [n, p] of the reader's output: [n * p, columns].

    ``inputs`` is [n, C, H, W] for a convolution, [n, ..., C] for a linear layer; only the input ``channels`` are taken,
    the columns are channel by channel, tap by tap, as in the flattened weight.
    """
    samples = torch.arange(len(inputs))[:, None].expand_as(positions).reshape(-1)
    places = positions.reshape(-1)
    if geometry is None:
        rows: torch.Tensor = inputs.reshape(len(inputs), -1, inputs.shape[-1])[:, :, channels][samples, places]
        return rows
    chosen = functional.pad(
        inputs[:, channels], (geometry.padding[1], geometry.padding[1], geometry.padding[0], geometry.padding[0])
    )
    count, depth, height, width = chosen.shape
    rows_out = _output_size(height, 0, geometry)
    columns_out = _output_size(width, 1, geometry)
    windows = chosen.as_strided(
        (count, rows_out, columns_out, depth, *geometry.kernel),
        (
            chosen.stride(0),
            chosen.stride(2) * geometry.stride[0],
            chosen.stride(3) * geometry.stride[1],
            chosen.stride(1),
            chosen.stride(2) * geometry.dilation[0],
            chosen.stride(3) * geometry.dilation[1],
        ),
    )
    return windows[samples, places // columns_out, places % columns_out].reshape(len(places), -1)


def output_rows(outputs: torch.Tensor, positions: torch.Tensor, *, convolution: bool) -> torch.Tensor:
    """A layer's output at ``positions`` [n, p]: [n * p, outputs]."""
    samples = torch.arange(len(outputs))[:, None].expand_as(positions).reshape(-1)
    rows: torch.Tensor = by_position(outputs, convolution=convolution)[samples, positions.reshape(-1)]
    return rows


def by_position(outputs: torch.Tensor, *, convolution: bool) -> torch.Tensor:
    """A layer's output as [n, positions, outputs]."""
    return outputs.flatten(2).transpose(1, 2) if convolution else outputs.reshape(len(outputs), -1, outputs.shape[-1])


def output_positions(outputs: torch.Tensor, *, convolution: bool) -> int:
    """Number of positions per sample of a layer's output."""
    per_sample = outputs[0].numel()
    return per_sample // outputs.shape[1 if convolution else -1]


def _output_size(padded: int, axis: int, geometry: Geometry) -> int:
    return (padded - geometry.dilation[axis] * (geometry.kernel[axis] - 1) - 1) // geometry.stride[axis] + 1
