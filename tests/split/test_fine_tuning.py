"""Fine-tuning brings a plan nearer to the dense model, and never moves a weight whose input a worker lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from divided_nets import captured_net
from generated_nets import samples

from edgefolio_pruner.split.channels.fine_tuning import Tuning
from edgefolio_pruner.split.channels.ownership import masked
from edgefolio_pruner.split.cutting import cuts_of
from edgefolio_pruner.split.planned import ShapedSplit
from edgefolio_pruner.split.planning import SplitPlanner


@pytest.fixture(scope="module", params=["whole", "behind a cut"])
def planner(request: pytest.FixtureRequest) -> SplitPlanner:
    torch.set_num_threads(1)
    captured = captured_net("residual", "concatenation")
    cut = cuts_of(captured)[1] if request.param == "behind a cut" else None
    return SplitPlanner(captured, samples(number=128), shares=(50, 50), cut=cut)


def tuning(epochs: int = 8, number: int = 4096) -> Tuning:
    inputs = samples(seed=4, number=number)
    return Tuning(epochs=epochs, samples=len(inputs), read=lambda places: inputs[places])


def error(planner: SplitPlanner, shaped: ShapedSplit) -> float:
    inputs = samples(seed=5, number=128)
    with torch.no_grad():
        wanted = planner.captured.graph_module(inputs)
        net = planner.captured.with_state({**planner.captured.parameters, **shaped.state})
        return float((net.graph_module(inputs) - wanted).square().mean() / wanted.var())


def test_masks_stay_bit_by_bit_and_the_answers_come_nearer(planner: SplitPlanner) -> None:
    shaped = planner.shape(0.1)
    before = {name: tensor.clone() for name, tensor in shaped.state.items()}
    tuned = planner.tuned(shaped, tuning())
    ones = {name: torch.ones_like(tensor) for name, tensor in shaped.state.items()}
    masks = masked(planner.divided, shaped.ownership, ones)
    missing = {name: mask == 0 for name, mask in masks.items() if bool((mask == 0).any())}
    assert missing
    for name, lacks in missing.items():
        # Zeros of one sign: the very bits.
        assert not tuned.state[name][lacks].numpy().view(np.uint32).any()
        assert (tuned.state[name][~lacks] != before[name][~lacks]).any()
    assert error(planner, tuned) < error(planner, shaped)
    # The plan that was tuned is as it was.
    assert all(torch.equal(shaped.state[name], tensor) for name, tensor in before.items())


def test_equal_samples_give_equal_weights(planner: SplitPlanner) -> None:
    shaped = planner.shape(0.1)
    first, second = (planner.tuned(shaped, tuning()).state for _ in range(2))
    assert any(not torch.equal(first[name], shaped.state[name]) for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_that_fit_a_few_samples_alone_are_not_taken(planner: SplitPlanner) -> None:
    shaped = planner.shape(0.1)
    assert planner.tuned(shaped, tuning(epochs=200, number=2)) is shaped


def test_steps_that_lead_nowhere_are_not_taken(planner: SplitPlanner) -> None:
    shaped = planner.shape(0.1)
    wrong = replace(tuning(epochs=1), read=lambda places: torch.full((len(places), 1, 6, 6), torch.inf))
    found = planner.tuned(shaped, wrong).state
    assert all(torch.equal(found[name], tensor) for name, tensor in shaped.state.items())


def test_what_loses_nothing_is_not_tuned(planner: SplitPlanner) -> None:
    never = replace(tuning(), read=lambda _places: pytest.fail("samples were read"))
    assert planner.plan(1.0, tuning=never).shaped.state.keys() == planner.body.parameters.keys()
