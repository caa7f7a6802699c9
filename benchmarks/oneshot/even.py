"""The one-shot route's selection and refit, with the same share of every block instead of its own shares."""

from __future__ import annotations

import torch
from torch import nn

from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import linear_maps
from edgefolio_pruner.oneshot.cascade import PrunedNet, survey_groups
from edgefolio_pruner.oneshot.output_losses import output_losses
from edgefolio_pruner.oneshot.prunable_groups import prunable_groups
from edgefolio_pruner.oneshot.targets import CHUNK_SAMPLES
from edgefolio_pruner.spatial import capture, channel_groups


def half_of_every_block(module: nn.Module, calibration: torch.Tensor, *, seed: int) -> tuple[PrunedNet, dict[str, int]]:
    """The net with half of the inner channels of every block, and how many each block keeps."""
    captured = capture(module, (calibration[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    maps, refused = linear_maps(graph, state)
    found, _ = prunable_groups(channel_groups(captured), maps, refused)
    groups = [group for group in found if group.group.kind == "inner"]
    chunks = list(torch.split(calibration, CHUNK_SAMPLES))
    kept = {group.name: group.channels // 2 for group in groups}
    with torch.no_grad():
        losses = output_losses(graph, state, chunks, maps, seed=seed)
        survey = survey_groups(graph, state, chunks, maps, groups, output_losses=losses, seed=seed, done=lambda _: None)
        net = PrunedNet(graph, state, chunks, maps, groups, survey=survey["output"], dropped=kept)
        original = GraphRun(graph, state, chunks, hold=[pair for linear in maps for pair in linear.held])
        for index, linear in enumerate(maps):
            original.advance(linear.end)
            net.refit(linear, original, seed=seed + index)
    return net, kept
