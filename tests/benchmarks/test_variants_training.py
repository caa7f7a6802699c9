"""The benchmark's training: when it stops, and that a killed one goes on to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.variants.nets import NETS, Net
from benchmarks.variants.peers.normalization import re_estimated, restated
from benchmarks.variants.training.alone import Trainable
from benchmarks.variants.training.standstill import finished, folder_of, recipe, train
from benchmarks.variants.training.stopping import Rule, Standing
from torch import nn

from edgefolio.specification import DataSpecification
from edgefolio.specification.making import Architecture
from edgefolio_pruner.architectures import cnn
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.data.loading import load_data
from edgefolio_pruner.spatial import capture, compress

RULE = Rule(least_gain=0.1, patience=3, rates=2)
NET = Net(
    title="small",
    architecture=Architecture(
        library="edgefolio", name="cnn", options={"width": 4, "in_channels": 1, "num_classes": 10}
    ),
    precision="float32",
)


def epochs(accuracies: list[float], rule: Rule = RULE) -> Standing:
    """The standing after these validation accuracies, or where training ended."""
    standing = Standing()
    for accuracy in accuracies:
        if standing.finished(rule):
            break
        standing = standing.after(accuracy, rule)
    return standing


def test_the_rate_falls_after_the_patience_and_training_ends_at_the_last_rate() -> None:
    assert epochs([50, 60, 70]).stage == 0
    assert epochs([50, 60, 60, 60]).stage == 0
    assert epochs([50, 60, 60, 60, 60]).stage == 1
    ended = epochs([50, 60, *[60] * 50])
    assert ended.finished(RULE)
    assert ended.epoch == 2 + RULE.patience * RULE.rates


def test_progress_ends_the_waiting_and_small_gains_add_up_to_it() -> None:
    assert epochs([50, 60, 60, 60, 61, 61, 61]).stage == 0
    # No epoch gains a tenth over the one before, every third one over the last progress.
    assert epochs([60 + 0.05 * step for step in range(40)]).stage == 0
    assert epochs([60 + 0.01 * step for step in range(40)]).finished(RULE)


def test_the_best_epoch_is_the_highest_not_the_last() -> None:
    standing = epochs([50, 80, 70, 79.9, 60])
    assert (standing.best, standing.best_epoch) == (80, 1)


def test_the_rates_begin_low_and_are_divided() -> None:
    assert Standing().rate_factor(RULE) == pytest.approx(0.2)
    assert Standing(epoch=5).rate_factor(RULE) == 1
    assert Standing(epoch=9, stage=2).rate_factor(RULE) == pytest.approx(1 / 25)


def test_training_has_an_end_even_where_accuracy_rises_for_ever() -> None:
    rule = Rule(most_epochs=7)
    assert epochs([float(step) for step in range(50)], rule).epoch == 7


@pytest.fixture(scope="module")
def data() -> DataBundle:
    """Digits of 8 x 8 pixels."""
    return load_data(DataSpecification(training_uri="builtin:digits"), seed=0)


class Killed(Exception):
    """Ends a training between two epochs."""


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, data: DataBundle) -> None:
    rule = Rule(patience=1, rates=2, most_epochs=6)
    whole = train("net", NET, 0, data, report=lambda *_: None, root=tmp_path / "whole", rule=rule)

    def kill(standing: Standing, _accuracy: float, _last: bool) -> None:
        if standing.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train("net", NET, 0, data, report=kill, root=tmp_path / "killed", rule=rule)
    seen: list[int] = []
    resumed = train(
        "net",
        NET,
        0,
        data,
        report=lambda standing, *_: seen.append(standing.epoch),
        root=tmp_path / "killed",
        rule=rule,
    )
    assert seen[0] == 3
    assert resumed.digest == whole.digest
    assert resumed.record["standing"] == whole.record["standing"]


def test_the_recipe_of_weights_in_a_cache_stays_as_it_is() -> None:
    assert recipe(NETS["resnet8"], 2) == {
        "architecture": {
            "library": "edgefolio",
            "name": "resnet8",
            "options": {"width": 32, "in_channels": 1, "num_classes": 10},
        },
        "data": "builtin:fashion-mnist",
        "trainingSamples": 6000,
        "optimizer": "SGD",
        "rate": 0.05,
        "weightDecay": 0.0005,
        "batch": 64,
        "augmentation": "Flip",
        "precision": "bfloat16",
        "rule": {"least_gain": 0.1, "patience": 3, "rates": 3, "division": 5.0, "most_epochs": 120},
        "seed": 2,
    }


def test_another_recipe_begins_anew(tmp_path: Path, data: DataBundle) -> None:
    rule = Rule(patience=1, rates=1, most_epochs=2)
    first = train("net", NET, 0, data, report=lambda *_: None, root=tmp_path, rule=rule)
    folder = folder_of("net", 0, tmp_path)
    key = recipe(NET, 0, samples=data.train.samples, rule=rule)
    held = finished(folder, key)
    assert held is not None
    assert held.digest == first.digest
    assert finished(folder, key | {"seed": 1}) is None
    assert finished(folder, recipe(NET, 0, samples=data.train.samples, rule=Rule(patience=2))) is None


def trained_norms() -> tuple[nn.Module, torch.Tensor]:
    """A network whose batch norms are far from what they see, and images."""
    torch.manual_seed(0)
    module = cnn(width=4, in_channels=1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 3)
    return module.eval(), torch.randn(256, 1, 8, 8)


def test_restated_norms_compute_the_same_in_both_modes() -> None:
    module, images = trained_norms()
    found = restated(module, images)
    with torch.no_grad():
        wanted = module(images)
        torch.testing.assert_close(found(images), wanted, rtol=1e-4, atol=1e-4)
        # All images in one batch: training mode sees the statistics that were put in.
        torch.testing.assert_close(found.train()(images), wanted, rtol=1e-3, atol=1e-3)


def test_re_estimated_norms_hold_the_statistics_of_the_images() -> None:
    module, images = trained_norms()
    found = re_estimated(module, images)
    first = next(layer for layer in found.modules() if isinstance(layer, nn.BatchNorm2d))
    convolution = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        assert first.running_mean is not None
        torch.testing.assert_close(first.running_mean, convolution(images).mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found(images), module(images))


def test_a_pruned_graph_trains_from_new_weights() -> None:
    module, images = trained_norms()
    with torch.no_grad():
        next(layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)).weight[0] = 0
    net = Trainable(compress(capture(module, (images[:2],))).module).restart(seed=1)
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.train()(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in net.named_buffers())
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(images)[:3], net(images[:3]), rtol=1e-4, atol=1e-4)
