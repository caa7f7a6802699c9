"""The one-shot route on small trained networks: what is zeroed can be removed exactly, and accuracy stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.calibrating.linear_maps import linear_maps
from edgefolio_pruner.oneshot import OneShotResult, prune_to_targets
from edgefolio_pruner.oneshot import targets as ladder_module
from edgefolio_pruner.oneshot.costs.macs import macs_model
from edgefolio_pruner.oneshot.prunable_groups import prunable_groups
from edgefolio_pruner.spatial import capture, channel_groups, compress, count_macs

if TYPE_CHECKING:
    from conftest import Digits

Trained = Callable[[str], nn.Module]
NAMES = ("residual", "chain", "plain", "depthwise", "perceptron")


def ladder(module: nn.Module, digits: Digits, *percents: int, seed: int = 0) -> tuple[OneShotResult, ...]:
    return prune_to_targets(module=module, calibration=digits.calibration, macs_percents=percents, seed=seed, threads=1)


def with_state(module: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    module.load_state_dict(state)
    return module.eval()


def by_magnitude(module: nn.Module, result: OneShotResult) -> dict[str, torch.Tensor]:
    """As many channels per group as ``result`` drops, those with the smallest filters, and no refit."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    captured = capture(module, (torch.zeros(2, 1, 8, 8),))
    for group in channel_groups(captured):
        if group.name not in result.kept:
            continue
        kept, before = result.kept[group.name]
        filters = group.writers[0]
        size = state[filters.parameter].flatten(1).norm(dim=1)[torch.tensor(filters.indices)[:, 0]]
        for channel in size.argsort()[: before - kept].tolist():
            for part in group.writers:
                state[part.parameter].index_fill_(part.axis, torch.tensor(part.indices[channel]), 0)
    return state


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_work_costs_little_and_far_less_than_by_magnitude(
    name: str, trained: Trained, digits: Digits
) -> None:
    module = trained(name)
    dense = digits.accuracy(module)
    assert dense > 90
    (result,) = ladder(module, digits, 50)
    assert result.reached
    magnitude = digits.accuracy(with_state(trained(name), by_magnitude(module, result)))
    pruned = digits.accuracy(with_state(module, result.state))
    assert pruned >= dense - 3
    assert pruned > magnitude


def test_a_quarter_of_the_work_still_beats_magnitude_by_far(trained: Trained, digits: Digits) -> None:
    module = trained("residual")
    (result,) = ladder(module, digits, 25)
    magnitude = digits.accuracy(with_state(trained("residual"), by_magnitude(module, result)))
    assert digits.accuracy(with_state(module, result.state)) > magnitude + 20


@pytest.mark.parametrize("name", NAMES)
def test_what_is_zeroed_is_removed_exactly(name: str, trained: Trained, digits: Digits) -> None:
    module = trained(name)
    for result in ladder(module, digits, 70, 40):
        captured = capture(with_state(module, result.state), (digits.images[:2],))
        compressed = compress(captured)
        with torch.no_grad():
            expected, found = module(digits.images[:50]), compressed.module(digits.images[:50])
        assert torch.allclose(expected, found, atol=1e-4 * float(expected.abs().max()))
        report = compressed.report
        share = 100 * report.macs_after / report.macs_before
        assert share == pytest.approx(result.macs_percent_reached, abs=0.01)
        assert result.macs_percent_reached <= result.percent
        after = {layer.name: (layer.after, layer.before) for layer in report.layers}
        for group, counts in result.kept.items():
            assert after[group] == counts


def test_fewer_macs_are_left_where_fewer_are_asked(trained: Trained, digits: Digits) -> None:
    results = ladder(trained("chain"), digits, 35, 80, 55)
    assert [result.percent for result in results] == [35, 80, 55]
    reached = [result.macs_percent_reached for result in results]
    assert reached[0] < reached[2] < reached[1]


def test_of_several_ways_the_one_is_taken_that_errs_least_at_the_end(
    trained: Trained, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = trained("residual")
    taken = ladder(module, digits, 60, 35)
    ways = []
    for weighting in ladder_module.WEIGHTINGS:
        monkeypatch.setattr(ladder_module, "WEIGHTINGS", (weighting,))
        ways.append(ladder(module, digits, 60, 35))
    assert len({str(results[0].kept) for results in ways}) > 1, "the ways do not differ here"
    for number, result in enumerate(taken):
        errors = [results[number].residuals[-1].relative_error for results in ways]
        assert result.residuals[-1].relative_error == min(errors)


def test_a_rung_of_a_ladder_is_what_it_is_alone_and_equal_seeds_give_equal_bits(
    trained: Trained, digits: Digits
) -> None:
    module = trained("residual")
    rung = ladder(module, digits, 75, 50, seed=3)[1]
    (alone,) = ladder(module, digits, 50, seed=3)
    assert rung.kept == alone.kept
    assert all(torch.equal(tensor, alone.state[name]) for name, tensor in rung.state.items())


def test_the_module_and_the_number_of_threads_stay_as_they_were(trained: Trained, digits: Digits) -> None:
    module = trained("plain").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    threads = torch.get_num_threads()
    (result,) = prune_to_targets(module=module, calibration=digits.calibration, macs_percents=(60,), seed=0, threads=2)
    assert torch.get_num_threads() == threads
    assert module.training
    assert result.state.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_nothing_to_drop_leaves_the_function_alone(trained: Trained, digits: Digits) -> None:
    module = trained("chain")
    (result,) = ladder(module, digits, 100)
    assert all(kept == before for kept, before in result.kept.values())
    with torch.no_grad():
        expected = module(digits.images[-200:])
        difference = (with_state(module, result.state)(digits.images[-200:]) - expected).abs().max()
    assert float(difference) < 0.02 * float(expected.abs().max())


def test_a_target_out_of_reach_is_said_not_hidden(trained: Trained, digits: Digits) -> None:
    (result,) = ladder(trained("residual"), digits, 1)
    assert not result.reached
    assert result.macs_percent_reached > 1
    module = trained("residual")
    captured = capture(module, (digits.images[:2],))
    maps, refused = linear_maps(captured.graph_module.graph, captured.parameters)
    groups, _ = prunable_groups(channel_groups(captured), maps, refused)
    assert {group.name: result.kept[group.name][0] for group in groups} == {group.name: group.least for group in groups}
    assert any("reached" in note for note in result.notes)
    assert result.left_out["fc"] == "network output"


def test_residuals_name_every_reader_and_grow_with_the_cut(trained: Trained, digits: Digits) -> None:
    mild, hard = ladder(trained("residual"), digits, 80, 30)
    names = [residual.layer for residual in hard.residuals]
    assert {"layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"} <= set(names)
    errors = [
        {residual.layer: residual.relative_error for residual in result.residuals if residual.layer.endswith("conv2")}
        for result in (mild, hard)
    ]
    assert all(0 <= errors[0][layer] <= errors[1][layer] < 1 for layer in errors[0])
    assert errors[0]["layer3.0.conv2"] < errors[1]["layer3.0.conv2"]


def test_progress_rises_to_one(trained: Trained, digits: Digits) -> None:
    seen: list[float] = []

    def progress(*, stage: str, fraction: float, message: str) -> None:
        assert stage == "one-shot"
        assert message
        seen.append(fraction)

    prune_to_targets(
        module=trained("chain"),
        calibration=digits.calibration,
        macs_percents=(70, 50),
        seed=0,
        threads=1,
        progress=progress,
    )
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 1


def test_little_memory_takes_fewer_samples_and_nets_in_turn(
    trained: Trained, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = trained("residual")
    monkeypatch.setattr(ladder_module, "MEMORY_BYTES", 2_000_000)
    results = ladder(module, digits, 70, 50)
    assert 8 <= results[0].samples < 512
    assert any("do not fit into memory" in note for note in results[0].notes)
    assert digits.accuracy(with_state(module, results[1].state)) > 70


class _Shared(nn.Module):
    """One convolution used twice: its channels are read at two call sites."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.twice = nn.Conv2d(12, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 10, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.twice(torch.relu(self.first(images))))
        return self.last(torch.relu(self.inner(torch.relu(self.twice(hidden))))).flatten(1)


def test_a_layer_that_is_used_twice_is_left_alone_with_a_reason(digits: Digits) -> None:
    torch.manual_seed(0)
    module = _Shared().eval()
    (result,) = ladder(module, digits, 60)
    assert set(result.kept) == {"inner"}
    assert "first" in result.left_out
    assert torch.equal(result.state["twice.weight"], module.state_dict()["twice.weight"])


def test_macs_are_counted_as_everywhere_else(trained: Trained, digits: Digits) -> None:
    for name in NAMES:
        captured = capture(trained(name), (digits.images[:2],))
        model = macs_model(captured.graph_module.graph, captured.parameters, channel_groups(captured))
        assert model.cost(model.channels) == count_macs(captured)


@pytest.mark.parametrize("name", ["few", "nan-samples", "nan-weights", "percent", "no-groups"])
def test_bad_input_is_one_clear_error(name: str, trained: Trained, digits: Digits) -> None:
    module, calibration, percent, field = trained("chain"), digits.calibration.clone(), 50, ""
    if name == "few":
        calibration, field = calibration[:3], "spec.data.calibrationSamples"
    elif name == "nan-samples":
        calibration[5, 0, 2, 2], field = torch.nan, "spec.data.trainingURI"
    elif name == "nan-weights":
        module.state_dict()["3.weight"][0, 0, 0, 0], field = torch.inf, "spec.source.weightsURI"
    elif name == "percent":
        percent, field = 0, "spec.methods.oneShot.macsPercent"
    else:
        module, field = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "spec.methods.oneShot"
    with pytest.raises(UserError) as caught:
        prune_to_targets(module=module, calibration=calibration, macs_percents=(percent,), seed=0, threads=1)
    assert caught.value.field == field
    assert caught.value.remedy
