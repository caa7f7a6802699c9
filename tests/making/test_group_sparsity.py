"""Group sparsity: whole channels go, nothing of them is left, and every group keeps its floor."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from edgefolio.specification import DataSpecification, SparseTraining
from edgefolio_pruner.data import DataBundle, load_data
from edgefolio_pruner.model_source.loading import build_architecture, parse_architecture
from edgefolio_pruner.spatial import ChannelGroup, capture, channel_groups, compress
from edgefolio_pruner.training import TrainedLevel, train_levels
from edgefolio_pruner.training.mask_groups import channel_scores, least_channels, prune_by_group
from edgefolio_pruner.training.masks import (
    Masks,
    apply_masks,
    full_masks,
    kept_weights,
    prunable_parameters,
    target_of,
)

RESNET = parse_architecture("edgefolio:resnet8", ["in_channels=1", "width=16"])
EXAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def trained_looking(seed: int = 0) -> nn.Module:
    """A network whose batch norms have statistics, scales and shifts of their own."""
    module = build_architecture(RESNET, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, std=0.3, generator=generator)
            nn.init.normal_(layer.running_mean, std=0.3, generator=generator)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5, generator=generator)  # type: ignore[arg-type]
    return module.eval()


@pytest.fixture(scope="module")
def groups() -> tuple[ChannelGroup, ...]:
    return channel_groups(capture(trained_looking(), (EXAMPLE,)))


def prune(module: nn.Module, groups: tuple[ChannelGroup, ...], percent: int, masks: Masks | None = None) -> Masks:
    masks = full_masks(module) if masks is None else masks
    prunable = prunable_parameters(module)
    target = target_of(kept_weights(masks, prunable), percent)
    return prune_by_group(masks, dict(module.named_parameters()), prunable, groups, target=target)


def living_channels(group: ChannelGroup, masks: Masks) -> list[int]:
    writer = group.writers[0]
    assert writer.axis == 0
    rows = masks[writer.parameter].flatten(1).any(dim=1)
    return [channel for channel in range(group.channels) if bool(rows[list(writer.indices[channel])].any())]


def test_masked_channels_are_zero_and_compress_removes_them_all(groups: tuple[ChannelGroup, ...]) -> None:
    module = trained_looking()
    masks = prune(module, groups, 60)
    apply_masks(module, masks)
    expected = {group.name: len(living_channels(group, masks)) for group in groups if group.prunable}
    assert sum(group.channels for group in groups if group.prunable) - sum(expected.values()) > 50
    inputs = torch.randn(8, 1, 8, 8)
    outputs: dict[str, torch.Tensor] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
    with torch.no_grad():
        logits = module(inputs)
    for group in groups:
        if not group.prunable:
            continue
        dead = sorted(set(range(group.channels)) - set(living_channels(group, masks)))
        for writer in group.writers:
            layer = writer.parameter.rpartition(".")[0]
            if layer in outputs:
                assert not outputs[layer][:, dead].any(), layer
    compressed = compress(capture(module, (EXAMPLE,)))
    kept = {layer.name: layer.after for layer in compressed.report.layers}
    for name, channels in expected.items():
        assert kept[name] == channels
    with torch.no_grad():
        torch.testing.assert_close(compressed.module(inputs), logits, rtol=1e-4, atol=1e-5)


def test_what_reads_a_masked_channel_does_not_matter(groups: tuple[ChannelGroup, ...]) -> None:
    module = trained_looking().double()
    masks = prune(module, groups, 60)
    apply_masks(module, masks)
    inputs = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    changed = copy.deepcopy(module)
    touched = 0
    parameters = dict(changed.named_parameters())
    with torch.no_grad():
        for group in (group for group in groups if group.prunable):
            for channel in sorted(set(range(group.channels)) - set(living_channels(group, masks))):
                for reader in group.readers:
                    positions = torch.tensor(reader.indices[channel])
                    parameters[reader.parameter].index_fill_(reader.axis, positions, 7.0)
                    touched += 1
        assert touched > 50
        # Rows that are masked themselves got values too: those go again.
        for name, mask in masks.items():
            rows = ~mask.flatten(1).any(dim=1) if mask.ndim > 1 else ~mask
            parameters[name][rows] = 0.0
        assert torch.equal(changed(inputs), module(inputs))


@pytest.mark.parametrize("percent", [40, 80, 95])
def test_quota_and_floors(groups: tuple[ChannelGroup, ...], percent: int) -> None:
    module = trained_looking()
    prunable = prunable_parameters(module)
    masks = prune(module, groups, percent)
    total = sum(weight.numel() for weight in prunable.values())
    kept = kept_weights(masks, prunable)
    assert kept == target_of(total, percent)
    for group in groups:
        living = len(living_channels(group, masks))
        if group.prunable:
            assert living >= least_channels(group.channels, share=target_of(total, percent) / total)
            assert living % 8 == 0
        else:
            assert living == group.channels


def test_levels_are_nested_and_shrink_further(groups: tuple[ChannelGroup, ...]) -> None:
    module = trained_looking()
    first = prune(module, groups, 40)
    apply_masks(module, first)
    second = prune(module, groups, 40, first)
    for name, mask in first.items():
        assert not bool((second[name] & ~mask).any())
    for group in groups:
        assert set(living_channels(group, second)) <= set(living_channels(group, first))
    assert sum(len(living_channels(group, second)) for group in groups) < sum(
        len(living_channels(group, first)) for group in groups
    )


def test_the_floor() -> None:
    assert [least_channels(channels, share=0.01) for channels in (4, 8, 16, 80, 81, 512)] == [4, 8, 8, 8, 9, 52]
    assert [least_channels(channels, share=0.6) for channels in (4, 8, 16, 24, 48, 512)] == [4, 8, 16, 16, 32, 312]


def test_scores_are_relative_to_the_layer_and_rank_by_carried_and_read(groups: tuple[ChannelGroup, ...]) -> None:
    module = trained_looking()
    parameters, prunable = dict(module.named_parameters()), prunable_parameters(module)
    group = next(group for group in groups if group.name == "layer2.0.conv1")
    before = channel_scores(group, parameters, prunable)
    with torch.no_grad():
        for name in ("layer2.0.bn1.weight", "layer2.0.conv2.weight"):
            parameters[name].mul_(10)
    assert channel_scores(group, parameters, prunable) == pytest.approx(before)
    with torch.no_grad():
        parameters["layer2.0.bn1.weight"][3] *= 0.01
        parameters["layer2.0.conv2.weight"][:, 5] *= 0.02
    after = channel_scores(group, parameters, prunable)
    assert sorted(range(32), key=after.__getitem__)[:2] == [3, 5]


def test_trained_levels_become_really_smaller(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        digits: DataBundle = load_data(DataSpecification(training_uri="builtin:digits"), seed=0)
    levels: tuple[TrainedLevel, ...] = train_levels(
        specification=SparseTraining(dense_epochs=3, levels=2, epochs_per_level=2, batch_size=64),
        build=partial(build_architecture, RESNET, seed=0),
        initial_state=None,
        data=digits,
        seed=0,
        threads=1,
        work_directory=tmp_path,
    )
    captured = capture(build_architecture(RESNET).eval(), (EXAMPLE,))
    work = [compress(captured.with_state(level.state())).report.macs_after for level in levels]
    assert work[0] > 1.2 * work[1]
    assert work[1] > 1.2 * work[2]
    assert work[0] > 2 * work[2]
    assert levels[2].kept_weights <= 0.37 * levels[2].prunable_weights
    # Masked biases, scales and shifts are exact zeros after training too.
    for level in levels[1:]:
        state = level.state()
        masked = {entry.parameter: entry.total - entry.kept for entry in level.masks}
        assert any(name.endswith("bias") and count for name, count in masked.items())
        assert all(int((state[name] == 0).sum()) >= count for name, count in masked.items())
    assert levels[2].validation_accuracy_percent > 85
