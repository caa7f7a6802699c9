"""Exact compression of a captured network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .capture import CapturedModel
from .macs import count_macs, count_parameters
from .plan import make_plan
from .program import lower
from .report import SpatialReport, barriers, layer_channels
from .rewrite import rewrite
from .structure import build_structure

__all__ = ["Compressed", "compress"]


@dataclass(frozen=True)
class Compressed:
    """``module`` is called like the captured module and gives the same outputs; ``report`` says what was removed."""

    module: torch.nn.Module
    report: SpatialReport


def compress(captured: CapturedModel) -> Compressed:
    """Remove every channel that provably does not change the outputs.

    The result computes the same function: it differs from the captured module by rounding alone. The captured model
    is left as it is. Runs in seconds; nothing is trained and no data is needed.
    """
    with torch.no_grad():
        plan = make_plan(build_structure(lower(captured)))
        module = rewrite(plan)
        report = SpatialReport(
            layers=layer_channels(plan),
            barriers=barriers(plan),
            parameters_before=count_parameters(captured.graph_module),
            parameters_after=count_parameters(module),
            macs_before=count_macs(captured),
            macs_after=count_macs(module, captured.input_shapes),
        )
    return Compressed(module, report)
