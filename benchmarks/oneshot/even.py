"""The one-shot route's selection and refit, with the same share of every block instead of its own shares."""

from __future__ import annotations

import torch
from torch import nn

from edgefolio_pruner.oneshot.cascade import PrunedNet, survey_groups
from edgefolio_pruner.oneshot.graph_run import GraphRun
from edgefolio_pruner.oneshot.readers import find_readers
from edgefolio_pruner.oneshot.targets import CHUNK_SAMPLES
from edgefolio_pruner.spatial import capture, channel_groups


def half_of_every_block(module: nn.Module, calibration: torch.Tensor, *, seed: int) -> tuple[PrunedNet, dict[str, int]]:
    """The net with half of the inner channels of every block, and how many each block keeps."""
    captured = capture(module, (calibration[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    readers, _ = find_readers(graph, state, channel_groups(captured))
    chunks = list(torch.split(calibration, CHUNK_SAMPLES))
    kept = {reader.group.name: reader.group.channels // 2 for reader in readers if reader.group is not None}
    with torch.no_grad():
        survey = survey_groups(graph, state, chunks, readers, seed=seed, done=lambda _: None)
        net = PrunedNet(graph, state, chunks, readers, survey=survey, dropped=kept)
        original = GraphRun(graph, state, chunks, hold=[pair for reader in readers for pair in reader.held])
        for index, reader in enumerate(readers):
            original.advance(reader.end)
            net.refit(reader, original, seed=seed + index)
    return net, kept
