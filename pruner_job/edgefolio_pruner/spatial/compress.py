"""Exact compression of a captured network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from edgefolio_pruner.spatial.assign import build_structure
from edgefolio_pruner.spatial.compression_report import LayerChannels, SpatialReport, barriers, layer_channels
from edgefolio_pruner.spatial.graph.capture import CapturedModel, copy_graph_module
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
    is_as_it_came: bool = False
    """Whether the module is the captured one, since without its dead channels it would be larger."""

    @cached_property
    def report(self) -> SpatialReport:
        """Made when it is asked for: counting operations runs both networks."""
        with torch.no_grad():
            return SpatialReport(
                layers=tuple(map(_kept, layer_channels(self.plan)))
                if self.is_as_it_came
                else layer_channels(self.plan),
                barriers=barriers(self.plan),
                parameters_before=count_parameters(self.captured.graph_module),
                parameters_after=count_parameters(self.module),
                macs_before=count_macs(self.captured),
                macs_after=count_macs(self.module, self.captured.input_shapes),
            )


def compress(captured: CapturedModel) -> Compressed:
    """Remove every channel that provably does not change the outputs.

    The result computes the same function: it differs from the captured module by rounding alone. It holds no more
    numbers: where constants of removed channels would make copies of shared weights, nothing is removed. The captured
    model is left as it is. Runs in seconds; nothing is trained and no data is needed.
    """
    with torch.no_grad():
        plan = plan_removal(build_structure(lower(captured)))
        module = rewrite(plan)
        if _held_numbers(module) <= _held_numbers(captured.graph_module):
            return Compressed(module=module, captured=captured, plan=plan)
        own = copy_graph_module(captured.graph_module)
        if captured.reads_as is not None:
            own.to(captured.reads_as)
        return Compressed(module=own, captured=captured, plan=plan, is_as_it_came=True)


def _held_numbers(module: torch.nn.Module) -> int:
    """Numbers in weights and statistics; what is held under several names counts once."""
    held = {id(tensor): tensor.numel() for tensor in (*module.parameters(), *module.buffers())}
    return sum(held.values())


def _kept(layer: LayerChannels) -> LayerChannels:
    removable = layer.before - layer.after
    return replace(
        layer,
        after=layer.before,
        removed_zero=0,
        folded_constant=0,
        merged_border=0,
        kept_because=f"{removable}: weights used in several places would need a copy for each, which is larger"
        if removable
        else layer.kept_because,
    )
