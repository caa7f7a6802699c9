"""Results of one-shot pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class ReaderResidual:
    """Fit of one reader: squared error over the target's variance, on held-out calibration samples."""

    layer: str
    relative_error: float
    ridge: float
    rows: int
    method: Literal["least-squares", "scale-and-bias"]


@dataclass(frozen=True, eq=False)
class OneShotResult:
    """One variant: the dense module's weights with whole channels zeroed and the rest re-fitted.

    ``state`` is a full state dict of the module; a removed channel's filter, bias, batch-norm scale and shift and its
    reader's columns are zero, so the exact pruning removes it. ``kept`` gives (channels kept, channels before) per
    group. ``percent`` is what was asked for of the dense model's multiply-accumulates or time, ``percent_reached`` what
    is left; ``reached`` is false if the groups that this route can prune do not suffice. ``left_out`` gives the reason
    why each other group was not pruned, ``notes`` is for the user. ``samples`` calibration samples were
    used; ``seconds`` is this variant's share of the time.
    """

    state: dict[str, torch.Tensor]
    kept: dict[str, tuple[int, int]]
    by: Literal["macs", "latency"]
    percent: int
    percent_reached: float
    macs_percent_reached: float
    reached: bool
    residuals: tuple[ReaderResidual, ...]
    left_out: dict[str, str]
    samples: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class OneShotResults:
    """The variants of several targets, and by percent why others yield none of use."""

    results: tuple[OneShotResult, ...]
    not_offered: dict[int, str]
