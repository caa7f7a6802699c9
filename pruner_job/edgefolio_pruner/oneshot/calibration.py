"""Calibration moments of a reader: the pruned net's inputs against the original net's outputs."""

from __future__ import annotations

import torch

from edgefolio_pruner.oneshot.graph_run import GraphRun
from edgefolio_pruner.oneshot.readers import Reader
from edgefolio_pruner.oneshot.rows import input_rows, output_positions, output_rows, sampled_positions
from edgefolio_pruner.refit import MomentAccumulator, SplitMoments

#: Rows collected per column (if available), for narrow and for wide maps; at least LEAST_ROWS.
ROWS_PER_COLUMN = 12
ROWS_PER_WIDE_COLUMN = 6
WIDE_COLUMNS = 2304
LEAST_ROWS = 8192
#: Every fourth calibration sample is held out.
HOLD_OUT_EVERY = 4


def folded_weights(reader: Reader, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The reader's weights with its batch norm folded in, as columns by outputs [d, o], float64."""
    weights = state[reader.weight].double().flatten(1).T
    return weights if reader.norm is None else weights * reader.norm.scale(state)


def collect_moments(
    reader: Reader,
    *,
    original: GraphRun,
    pruned: GraphRun,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    seed: int,
) -> SplitMoments:
    """Moments of the reader's columns against its targets, on sampled positions.

    Both nets have been run up to the reader's end. Only the input channels ``inputs`` and the outputs ``outputs``,
    which are kept, are collected. The target is the output for which the reader's end (a residual sum, where there is
    one) equals the original's: the original's end minus what the pruned net adds to it.
    """
    convolution = reader.geometry is not None
    ends = original.values(reader.end)
    columns = inputs.numel() * (1 if reader.geometry is None else reader.geometry.kernel[0] * reader.geometry.kernel[1])
    samples = sum(len(end) for end in ends)
    positions = output_positions(ends[0], convolution=convolution)
    narrow, wide = ROWS_PER_COLUMN * min(columns, WIDE_COLUMNS), ROWS_PER_WIDE_COLUMN * columns
    wanted = max(LEAST_ROWS, narrow, wide)
    chosen = sampled_positions(samples, positions, wanted, generator=torch.Generator().manual_seed(seed))
    parts = {held_out: MomentAccumulator(columns=columns, outputs=outputs.numel()) for held_out in (False, True)}
    skips = None if reader.skip is None else pruned.values(reader.skip)
    start = 0
    for index, source in enumerate(pruned.values(reader.source)):
        here = chosen[start : start + len(source)]
        targets = output_rows(ends[index], here, convolution=convolution)[:, outputs]
        if skips is not None:
            targets = targets - output_rows(skips[index], here, convolution=convolution)[:, outputs]
        rows = input_rows(source, here, inputs, reader.geometry)
        last = (torch.arange(start, start + len(source)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1).repeat_interleave(
            here.shape[1]
        )
        for held_out, part in parts.items():
            part.add(rows[last == held_out], targets[last == held_out])
        start += len(source)
    return SplitMoments(fit=parts[False].moments(), held_out=parts[True].moments())


def write_refit(
    reader: Reader,
    state: dict[str, torch.Tensor],
    *,
    weights: torch.Tensor,
    bias: torch.Tensor,
    outputs: torch.Tensor,
) -> None:
    """Write a fitted map (``weights`` [d, len(outputs)] for all columns, ``bias``) to the reader and its batch norm.

    The offset goes into the batch norm's running mean, or into the layer's bias; the batch norm's factor stays. An
    output that its batch norm multiplies by zero keeps its weights: only its offset can be read.
    """
    held = state[reader.weight]
    flat = held.flatten(1).clone()
    scale = torch.ones(held.shape[0], dtype=torch.float64)
    if reader.norm is not None:
        scale = reader.norm.scale(state)
    live = scale[outputs].abs() > 0
    fitted = (weights / torch.where(live, scale[outputs], 1.0)).T
    flat[outputs[live]] = fitted[live].to(held.dtype)
    state[reader.weight] = flat.reshape(held.shape)
    if reader.norm is None:
        if reader.bias is not None:
            offsets = state[reader.bias].clone()
            offsets[outputs] = bias.to(offsets.dtype)
            state[reader.bias] = offsets
        return
    norm = reader.norm
    before = torch.zeros_like(bias) if reader.bias is None else state[reader.bias].double()[outputs]
    shift = torch.zeros_like(bias) if norm.bias is None else state[norm.bias].double()[outputs]
    mean = state[norm.mean].clone()
    mean[outputs[live]] = (before + (shift - bias) / torch.where(live, scale[outputs], 1.0))[live].to(mean.dtype)
    state[norm.mean] = mean
