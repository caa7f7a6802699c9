"""Exact compression of a captured network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.compression_report import SpatialReport, barriers, layer_channels
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.macs import count_macs, count_parameters
from edgefolio_pruner.spatial.graph.program import lower
from edgefolio_pruner.spatial.passes.removal_plan import RemovalPlan, plan_removal
from edgefolio_pruner.spatial.rewrite import rewrite

__all__ = ["Compressed", "compress"]


@dataclass(frozen=True, eq=False)
class Compressed:
    """``module`` is called like the captured module and gives the same outputs; ``report`` says what was removed."""

    module: torch.nn.Module
    captured: CapturedModel
    plan: RemovalPlan

    @cached_property
    def report(self) -> SpatialReport:
        """Made when it is asked for: counting operations runs both networks."""
        with torch.no_grad():
            return SpatialReport(
                layers=layer_channels(self.plan),
                barriers=barriers(self.plan),
                parameters_before=count_parameters(self.captured.graph_module),
                parameters_after=count_parameters(self.module),
                macs_before=count_macs(self.captured),
                macs_after=count_macs(self.module, self.captured.input_shapes),
            )


def compress(captured: CapturedModel) -> Compressed:
    """Remove every channel that provably does not change the outputs.

    The result computes the same function: it differs from the captured module by rounding alone. The captured model
    is left as it is. Runs in seconds; nothing is trained and no data is needed.
    """
    with torch.no_grad():
        plan = plan_removal(build_structure(lower(captured)))
        return Compressed(module=rewrite(plan), captured=captured, plan=plan)
