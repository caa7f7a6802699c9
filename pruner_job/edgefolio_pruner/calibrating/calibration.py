"""Calibration moments of a linear map: the pruned net's inputs against the original net's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.calibrating.rows import input_rows, output_positions, output_rows, sampled_positions
from edgefolio_pruner.refit import GroupedAccumulator, MomentAccumulator, Moments, SplitMoments

#: Rows collected per column (if available), for narrow and for wide maps; at least LEAST_ROWS.
ROWS_PER_COLUMN = 12
ROWS_PER_WIDE_COLUMN = 6
WIDE_COLUMNS = 2304
LEAST_ROWS = 8192
#: Narrow maps take more, up to so many, as long as their Gram matrix costs no more products than this.
MOST_ROWS = 65_536
PRODUCTS = 4e9
#: Every fourth calibration sample is held out.
HOLD_OUT_EVERY = 4
#: Values of the rows that are taken together.
_VALUES_AT_ONCE = 1 << 25


@dataclass(frozen=True, eq=False)
class KeptChannels:
    """What a map keeps: input channels of each of its groups, its groups, and the outputs of each.

    ``inputs`` and ``outputs`` are positions within a group, the same in all that are kept.
    """

    inputs: torch.Tensor
    groups: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def all_of(cls, linear: LinearMap) -> KeptChannels:
        """All channels of ``linear``."""
        return cls(torch.arange(linear.inputs), torch.arange(linear.groups), torch.arange(linear.outputs))

    def columns(self, linear: LinearMap) -> torch.Tensor:
        """The kept columns of the flattened weight, ascending."""
        return (self.inputs[:, None] * linear.taps + torch.arange(linear.taps)).reshape(-1)

    def rows(self, linear: LinearMap) -> torch.Tensor:
        """The kept outputs [groups, outputs] as positions among all outputs."""
        return self.groups[:, None] * linear.outputs + self.outputs

    def sources(self, linear: LinearMap) -> torch.Tensor:
        """The kept input channels, group by group, as positions among all input channels."""
        return (self.groups[:, None] * linear.inputs + self.inputs).reshape(-1)


def calibration_rows(
    linear: LinearMap, *, original: GraphRun, pruned: GraphRun, kept: KeptChannels, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, bool]]:
    """Rows of the map's kept columns and its targets on sampled positions, batch by batch; whether they are held out.

    Both nets have been run up to the map's end. The target is the output for which the map's end (a residual sum, where
    there is one) equals the original's: the original's end minus what the pruned net adds to it.
    """
    convolution = linear.geometry is not None
    ends = original.values(linear.end)
    columns = kept.inputs.numel() * linear.taps
    samples = sum(len(end) for end in ends)
    positions = output_positions(ends[0], convolution=convolution)
    wanted = _wanted_rows(columns, groups=kept.groups.numel())
    chosen = sampled_positions(samples, positions, wanted, generator=torch.Generator().manual_seed(seed))
    sources, rows = kept.sources(linear), kept.rows(linear).reshape(-1)
    skips = None if linear.skip is None else pruned.values(linear.skip)
    start = 0
    for index, source in enumerate(pruned.values(linear.source)):
        step = max(1, _VALUES_AT_ONCE // max(1, chosen.shape[1] * columns * kept.groups.numel()))
        for first in range(0, len(source), step):
            part = slice(first, min(first + step, len(source)))
            here = chosen[start + part.start : start + part.stop]
            targets = output_rows(ends[index][part], here, convolution=convolution)[:, rows]
            if skips is not None:
                targets = targets - output_rows(skips[index][part], here, convolution=convolution)[:, rows]
            inputs = input_rows(source[part], here, sources, linear.geometry)
            last = torch.arange(start + part.start, start + part.stop) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
            last = last.repeat_interleave(here.shape[1])
            for held_out in (False, True):
                yield inputs[last == held_out], targets[last == held_out], held_out
        start += len(source)


def _wanted_rows(columns: int, *, groups: int) -> int:
    narrow, wide = ROWS_PER_COLUMN * min(columns, WIDE_COLUMNS), ROWS_PER_WIDE_COLUMN * columns
    cheap = 0 if groups > 1 else min(MOST_ROWS, int(PRODUCTS / max(1, columns) ** 2))
    return max(LEAST_ROWS, narrow, wide, cheap)


def collect_moments(
    linear: LinearMap, *, original: GraphRun, pruned: GraphRun, kept: KeptChannels, seed: int
) -> tuple[SplitMoments, ...]:
    """Moments of :func:`calibration_rows`; one for each kept group."""
    columns, outputs, groups = kept.inputs.numel() * linear.taps, kept.outputs.numel(), kept.groups.numel()
    parts = {held_out: _Sums(groups=groups, columns=columns, outputs=outputs) for held_out in (False, True)}
    for inputs, targets, held_out in calibration_rows(linear, original=original, pruned=pruned, kept=kept, seed=seed):
        parts[held_out].add(inputs, targets)
    return tuple(
        SplitMoments(fit=fit, held_out=judge)
        for fit, judge in zip(parts[False].moments(), parts[True].moments(), strict=True)
    )


class _Sums:
    """The moments of one map, or of all groups of a grouped one."""

    def __init__(self, *, groups: int, columns: int, outputs: int) -> None:
        self._columns, self._outputs = (groups, columns), (groups, outputs)
        self._single = MomentAccumulator(columns=columns, outputs=outputs) if groups == 1 else None
        self._many = GroupedAccumulator(groups=groups, columns=columns, outputs=outputs) if groups != 1 else None

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        if self._single is not None:
            self._single.add(inputs, targets)
        elif self._many is not None:
            self._many.add(inputs.reshape(len(inputs), *self._columns), targets.reshape(len(targets), *self._outputs))

    def moments(self) -> tuple[Moments, ...]:
        if self._single is not None:
            return (self._single.moments(),)
        assert self._many is not None
        return self._many.moments()


def write_refit(
    linear: LinearMap, state: State, *, weights: torch.Tensor, bias: torch.Tensor, outputs: torch.Tensor
) -> None:
    """Write a fitted map (``weights`` [d, len(outputs)] for all columns, ``bias``) to the layer and its batch norm.

    The offset goes into the batch norm's running mean, or into the layer's bias; the batch norm's factor stays. An
    output that its batch norm multiplies by zero keeps its weights: only its offset can be read.
    """
    held = state[linear.weight]
    flat = held.flatten(1).clone()
    scale = torch.ones(held.shape[0], dtype=torch.float64)
    if linear.norm is not None:
        scale = linear.norm.scale(state)
    live = scale[outputs].abs() > 0
    fitted = (weights / torch.where(live, scale[outputs], 1.0)).T
    flat[outputs[live]] = fitted[live].to(held.dtype)
    state[linear.weight] = flat.reshape(held.shape)
    _write_offsets(linear, state, bias=bias, outputs=outputs, scale=scale)


def write_scaled(
    linear: LinearMap, state: State, *, factor: torch.Tensor, bias: torch.Tensor, outputs: torch.Tensor
) -> None:
    """Multiply the weights of ``outputs`` by ``factor`` and write ``bias``, as :func:`write_refit` does, in place of a
    fit of all columns."""
    held = state[linear.weight].clone()
    scale = torch.ones(held.shape[0], dtype=torch.float64)
    if linear.norm is not None:
        scale = linear.norm.scale(state)
    live = torch.where(scale[outputs].abs() > 0, factor, 1.0)
    every = torch.ones(held.shape[0], dtype=held.dtype)
    every[outputs] = live.to(held.dtype)
    state[linear.weight] = held.mul_(every.reshape(-1, *[1] * (held.ndim - 1)))
    _write_offsets(linear, state, bias=bias, outputs=outputs, scale=scale)


def _write_offsets(
    linear: LinearMap, state: State, *, bias: torch.Tensor, outputs: torch.Tensor, scale: torch.Tensor
) -> None:
    """Write the offset of each of ``outputs``; ``scale`` is the batch norm's factor of every output."""
    live = scale[outputs].abs() > 0
    if linear.norm is None:
        if linear.bias is not None:
            offsets = state[linear.bias].clone()
            offsets[outputs] = bias.to(offsets.dtype)
            state[linear.bias] = offsets
        return
    norm = linear.norm
    before = torch.zeros_like(bias) if linear.bias is None else state[linear.bias].double()[outputs]
    shift = torch.zeros_like(bias) if norm.bias is None else state[norm.bias].double()[outputs]
    mean = state[norm.mean].clone()
    mean[outputs[live]] = (before + (shift - bias) / torch.where(live, scale[outputs], 1.0))[live].to(mean.dtype)
    state[norm.mean] = mean
