"""Networks with a planted division: the plan finds it, and never does worse by its own objective."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_nets import PlantedNet, planted_samples

from edgefolio_pruner.spatial import capture
from edgefolio_pruner.split.channels.assignment import Objective, assign, restructure
from edgefolio_pruner.split.planning import SplitPlanner

WIDTH = 40
DIVISIONS = [((20, 20), (50, 50)), ((20, 12, 8), (50, 30, 20)), ((10,) * 4, (25,) * 4)]
FORMS = ["plain", "residual", "concatenation"]


def planned(net: PlantedNet, shares: tuple[int, ...]) -> SplitPlanner:
    torch.set_num_threads(1)
    inputs = planted_samples()
    return SplitPlanner(capture(net.eval(), (inputs[:2],)), inputs, shares=shares)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("sizes", "shares"), DIVISIONS)
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_a_planted_division_is_found(
    form: str, sizes: tuple[int, ...], shares: tuple[int, ...], density: float
) -> None:
    planner = planned(PlantedNet(form, width=WIDTH, sizes=sizes, density=density, seed=1), shares)
    objective = Objective(planner.divided, planner.survey)
    found = restructure(planner.divided, objective, shares, field="workers")
    assert found.contiguous_value > 0.1
    assert found.values[-1] < 1e-9
    assert all(later <= earlier for earlier, later in itertools.pairwise(found.values))


@pytest.mark.parametrize("form", FORMS)
def test_the_plan_of_a_planted_net_sends_nothing_and_changes_nothing(form: str) -> None:
    net = PlantedNet(form, width=WIDTH, sizes=(20, 12, 8), density=0.1, seed=2)
    planner = planned(net, (50, 30, 20))
    inputs = planted_samples(64)
    plan = planner.plan(0.2)
    assert plan.bytes_in == 0
    with torch.no_grad():
        wanted = net(inputs).numpy()
    answer = plan.executor().run(inputs.numpy()).outputs[0]
    assert np.abs(answer - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("sizes", "shares"), DIVISIONS)
@pytest.mark.parametrize(("density", "noise", "allowed"), [(1.0, 0.2, 1.0), (0.2, 0.5, 1.05)])
def test_noise_between_the_blocks_does_not_hide_the_division(
    form: str, sizes: tuple[int, ...], shares: tuple[int, ...], density: float, noise: float, allowed: float
) -> None:
    net = PlantedNet(form, width=WIDTH, sizes=sizes, density=density, noise=noise, noise_density=density, seed=3)
    planner = planned(net, shares)
    objective = Objective(planner.divided, planner.survey)
    wanted = objective.value(net.planted(planner.divided.families, planner.divided.units), len(shares))
    found = restructure(planner.divided, objective, shares, field="workers")
    assert found.values[-1] <= allowed * wanted * (1 + 1e-9)


@given(
    costs=st.integers(2, 8).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=n, max_size=n)
    ),
    cuts=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
@settings(max_examples=60, deadline=None)
def test_the_assignment_is_that_of_brute_force(costs: list[list[int]], cuts: tuple[int, int]) -> None:
    table = np.array(costs, dtype=np.float64)
    low, high = sorted(min(cut, len(table)) for cut in cuts)
    counts = (low, high - low, len(table) - high)
    found = assign(table, counts)
    assert np.bincount(found, minlength=3).tolist() == list(counts)
    slots = np.repeat(np.arange(3), counts)
    best = min(sum(table[range(len(table)), list(each)]) for each in set(itertools.permutations(slots.tolist())))
    assert table[np.arange(len(table)), found].sum() == best
