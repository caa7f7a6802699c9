"""The loss that a refit reports against the one that the net has when the fitted weights are in it."""

from __future__ import annotations

import pytest
import torch
from generated_nets import BLOCKS, net_of, samples

from edgefolio_pruner.calibrating.calibration import calibration_rows, collect_moments
from edgefolio_pruner.calibrating.graph_run import GraphRun
from edgefolio_pruner.calibrating.linear_maps import linear_maps
from edgefolio_pruner.oneshot.cascade import PrunedNet, survey_groups
from edgefolio_pruner.oneshot.output_losses import output_losses
from edgefolio_pruner.oneshot.prunable_groups import prunable_groups
from edgefolio_pruner.spatial import capture, channel_groups

torch.set_num_threads(1)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_refit_has_the_loss_that_its_moments_give(name: str) -> None:
    net = net_of([name], 5)
    captured = capture(net, (samples()[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    maps, refused = linear_maps(graph, state)
    groups, _ = prunable_groups(channel_groups(captured), maps, refused)
    chunks = [samples()]
    with torch.no_grad():
        losses = output_losses(graph, state, chunks, maps, seed=0)
        surveys = survey_groups(graph, state, chunks, maps, groups, output_losses=losses, seed=0, done=lambda _: None)
        dropped = {group.name: group.channels // 3 for group in groups}
        pruned = PrunedNet(graph, state, chunks, maps, groups, survey=surveys["output"], dropped=dropped)
        hold = [pair for linear in maps for pair in linear.held]
        original = GraphRun(graph, state, chunks, hold=hold)
        fitted = 0
        for linear in maps:
            original.advance(linear.end)
            before = len(pruned.residuals)
            pruned.refit(linear, original, seed=0)
            if len(pruned.residuals) == before:
                continue
            fitted += 1
            kept = pruned.kept_channels(linear)
            columns, rows = kept.columns(linear), kept.rows(linear)
            # With the weights that stand in the net now, read back through the batch norm.
            weights = linear.folded(pruned.state)[columns]
            ends = {held_out: [0.0, 0.0] for held_out in (False, True)}
            bias = offset_of(linear, pruned)
            for inputs, targets, held_out in calibration_rows(
                linear, original=original, pruned=pruned.run, kept=kept, seed=0
            ):
                for number, row in enumerate(rows):
                    part = inputs.reshape(len(inputs), len(rows), -1)[:, number].double()
                    wanted = targets.reshape(len(targets), len(rows), -1)[:, number].double()
                    ends[held_out][0] += float((wanted - part @ weights[:, row] - bias[row]).square().sum())
                    ends[held_out][1] += float(wanted.square().sum())
            moments = collect_moments(linear, original=original, pruned=pruned.run, kept=kept, seed=0)
            for held_out in (False, True):
                reported = sum(
                    float((split.held_out if held_out else split.fit).squared_error(weights[:, row], bias[row]).sum())
                    for row, split in zip(rows, moments, strict=True)
                )
                # Both are float64 sums of fewer than ten thousand terms over the same float32 rows.
                assert reported == pytest.approx(ends[held_out][0], rel=1e-6, abs=1e-9 * ends[held_out][1])
            assert pruned.residuals[-1].relative_error >= 0
        assert fitted >= len(groups)


def offset_of(linear, net: PrunedNet) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """What a map adds to its columns' sum, after its batch norm."""
    outputs = linear.groups * linear.outputs
    bias = torch.zeros(outputs, dtype=torch.float64)
    if linear.bias is not None:
        bias = net.state[linear.bias].double()
    norm = linear.norm
    if norm is None:
        return bias
    shift = torch.zeros_like(bias) if norm.bias is None else net.state[norm.bias].double()
    return (bias - net.state[norm.mean].double()) * norm.scale(net.state) + shift


@pytest.mark.parametrize("name", ["grouped", "inverted"])
def test_a_refit_map_is_run_again_with_what_was_written(name: str) -> None:
    net = net_of([name], 6)
    captured = capture(net, (samples()[:2],))
    graph, state = captured.graph_module.graph, captured.parameters
    maps, refused = linear_maps(graph, state)
    groups, _ = prunable_groups(channel_groups(captured), maps, refused)
    chunks = [samples()]
    with torch.no_grad():
        losses = output_losses(graph, state, chunks, maps, seed=0)
        surveys = survey_groups(graph, state, chunks, maps, groups, output_losses=losses, seed=0, done=lambda _: None)
        dropped = {group.name: group.channels // 3 for group in groups}
        pruned = PrunedNet(graph, state, chunks, maps, groups, survey=surveys["own"], dropped=dropped)
        original = GraphRun(graph, state, chunks, hold=[pair for linear in maps for pair in linear.held])
        for linear in maps:
            original.advance(linear.end)
            pruned.refit(linear, original, seed=0)
        output = next(node for node in reversed(graph.nodes) if node.op == "output").all_input_nodes[0]
        net.load_state_dict({key: pruned.state.get(key, tensor) for key, tensor in net.state_dict().items()})
        assert torch.allclose(pruned.run.values(output)[0], net(samples()), rtol=1e-3, atol=1e-4)
