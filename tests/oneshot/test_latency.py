"""Shares by time: plans follow a table of times, whatever it says, and what it does not give is not offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from edgefolio.errors import UserError
from edgefolio_pruner.oneshot import OneShotResults, layers_to_time, prune_to_latencies
from edgefolio_pruner.profiling.layer_times import LayerShape, LayerTimes, measure_layer_times
from edgefolio_pruner.spatial import capture, compress

if TYPE_CHECKING:
    from conftest import Digits

Trained = Callable[[str], nn.Module]


def table(shapes: tuple[LayerShape, ...], price: Callable[[str, int], float]) -> dict[str, LayerTimes]:
    """Times by ``price`` of the layer's name and width, along both axes."""
    return {
        shape.name: LayerTimes(
            rows=tuple((width, price(shape.name, width)) for width in shape.rows),
            columns=tuple((width, price(shape.name, width)) for width in shape.columns),
        )
        for shape in shapes
    }


def pruned(module: nn.Module, digits: Digits, times: Mapping[str, LayerTimes], *percents: int) -> OneShotResults:
    return prune_to_latencies(
        module=module, calibration=digits.calibration, latency_percents=percents, layer_times=times, seed=0, threads=1
    )


def test_a_width_between_two_measured_ones_takes_the_time_of_the_wider_and_of_no_narrower_one() -> None:
    times = LayerTimes(rows=((8, 1.0), (16, 3.0), (24, 2.0), (32, 4.0)), columns=((4, 1.0), (8, 4.0)))
    assert [times.at(rows, 8) for rows in (0, 1, 8, 9, 16, 24, 25, 32)] == [0, 1, 1, 2, 2, 2, 4, 4]
    assert times.at(32, 4) == 1
    assert times.at(16, 3) == 0.5
    assert times.at(16, 0) == 0


def test_equal_tables_give_equal_bytes_and_the_share_that_was_asked(trained: Trained, digits: Digits) -> None:
    module = trained("residual")
    times = table(layers_to_time(module, digits.images), lambda _, width: float(width))
    first, second = pruned(module, digits, times, 60), pruned(module, digits, times, 60)
    (result,), (again,) = first.results, second.results
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in result.state.items())
    assert (result.by, result.percent, result.reached) == ("latency", 60, True)
    assert result.percent_reached <= 60
    module.load_state_dict(result.state)
    report = compress(capture(module, (digits.images[:2],))).report
    assert 100 * report.macs_after / report.macs_before == pytest.approx(result.macs_percent_reached, abs=0.01)


def test_only_what_saves_time_is_removed(trained: Trained, digits: Digits) -> None:
    module = trained("chain")
    shapes = layers_to_time(module, digits.images)
    whole = {shape.name: shape.rows[-1] for shape in shapes}

    def price(name: str, width: int) -> float:
        # The last layer reads what the third convolution writes; nothing else gets faster.
        return width / 100 if name == "11.weight" else 1.0

    assert "11.weight" in whole
    times = table(shapes, price)
    (result,) = pruned(module, digits, times, 70).results
    assert [name for name, (kept, before) in result.kept.items() if kept < before] == ["7"]


def test_what_yields_no_speed_is_not_offered(trained: Trained, digits: Digits) -> None:
    module = trained("chain")
    flat = table(layers_to_time(module, digits.images), lambda _, width: 1.0)
    found = pruned(module, digits, flat, 90, 50)
    assert not found.results
    assert all("faster" in reason for reason in found.not_offered.values())
    # One plateau: half of the time at half of the width, nothing between.
    steps = table(
        layers_to_time(module, digits.images), lambda name, width: 0.5 if name == "7.weight" and width <= 16 else 1.0
    )
    found = pruned(module, digits, steps, 95, 92)
    assert [result.percent for result in found.results] == [95]
    assert found.not_offered == {92: "latencyPercent 95 is the same variant"}


def test_a_share_out_of_reach_gives_the_nearest_and_says_so(trained: Trained, digits: Digits) -> None:
    module = trained("chain")
    times = table(layers_to_time(module, digits.images), lambda _, width: 10.0 + width)
    (result,) = pruned(module, digits, times, 5).results
    assert not result.reached
    assert result.percent_reached > 5
    assert "5 % of the milliseconds were asked for" in result.notes[-1]


def test_a_part_that_is_none_is_refused(trained: Trained, digits: Digits) -> None:
    with pytest.raises(UserError) as caught:
        pruned(trained("chain"), digits, {}, 0)
    assert caught.value.field == "spec.methods.oneShot.latencyPercent"


@pytest.mark.parametrize("name", ["residual", "depthwise", "perceptron"])
def test_the_runtime_is_timed_at_every_width(name: str, trained: Trained, digits: Digits) -> None:
    shapes = layers_to_time(trained(name), digits.images)
    times = measure_layer_times(shapes, batch=2, threads=1)
    assert times.keys() == {shape.name for shape in shapes}
    for shape in shapes:
        found = times[shape.name]
        assert tuple(width for width, _ in found.rows) == shape.rows
        assert tuple(width for width, _ in found.columns) == shape.columns
        assert all(milliseconds > 0 for _, milliseconds in (*found.rows, *found.columns))
        assert shape.rows == tuple(sorted(shape.rows))
        assert len(shape.rows) <= 13
