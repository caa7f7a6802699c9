"""The search finds what trying everything finds, and the link decides what is worth making."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from divided_nets import captured_net
from generated_nets import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgefolio_pruner.spatial import CapturedModel, capture
from edgefolio_pruner.spatial.graph.program import lower
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.plan_making import PlanMaker
from edgefolio_pruner.split.rows.states import row_states
from edgefolio_pruner.split.search import row_groups
from edgefolio_pruner.split.search.channel_ways import KEEPS
from edgefolio_pruner.split.search.keeps import ExchangeOptions, Option, choices
from edgefolio_pruner.split.search.layers import LayerTimes, layer_of, timed_layers
from edgefolio_pruner.split.search.network import Network
from edgefolio_pruner.split.search.searching import MOST_PLANS, search
from edgefolio_pruner.split.search.spec import PlanSpec

SHARES = (50, 50)


def network(round_trip: float, bits: float = 1e9) -> Network:
    return Network(bits_per_second=bits, round_trip_milliseconds=round_trip, element_bytes=4)


def times_of_layers(captured: CapturedModel) -> dict[str, LayerTimes]:
    """A millisecond for each layer, and what one would like its parts to take."""
    names = [layer_of(node) for node in lower(captured).nodes]
    return {
        name: LayerTimes(rows=24, band_rows=12, whole=1.0, band=0.55, read=0.7, own=0.25, part=0.5)
        for name in names
        if name is not None
    }


def losses_of(captured: CapturedModel) -> dict[str, tuple[float, ...]]:
    """More is lost the less is sent, the more the later the layer."""
    points = [point for point in divide(captured).points if point.kind == "send"]
    return {point.place: tuple((1 - keep) * (1 + n) / 10 for keep in KEEPS) for n, point in enumerate(points)}


@given(
    costs=st.lists(
        st.tuples(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=3)),
        min_size=1,
        max_size=4,
    ),
    wait=st.integers(0, 5),
    most=st.sampled_from([None, 0, 1, 2]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_choices_are_those_of_trying_all(
    costs: list[tuple[int, list[tuple[int, int]]]], wait: int, most: int | None
) -> None:
    exchanges = [
        ExchangeOptions(
            place=f"layer{number}",
            depth=depth,
            # The last one sends nothing.
            options=tuple(
                Option(keep=float(len(pairs) - 1 - place), milliseconds=float(cost), loss=float(loss))
                for place, (cost, loss) in enumerate(pairs)
            ),
        )
        for number, (depth, pairs) in enumerate(costs)
    ]
    tried = []
    for options in itertools.product(*(each.options for each in exchanges)):
        waits = len({e.depth for e, option in zip(exchanges, options, strict=True) if option.keep > 0})
        if most is None or waits <= most:
            tried.append((sum(o.milliseconds for o in options) + wait * waits, sum(o.loss for o in options)))
    best = sorted(
        {(t, loss) for t, loss in tried if not any(a <= t and b <= loss and (a, b) != (t, loss) for a, b in tried)}
    )
    found = choices(exchanges, wait_milliseconds=wait, most_waits=most)
    assert sorted((choice.milliseconds, choice.loss) for choice in found) == best
    for choice in found:
        kept = dict(choice.keeps)
        assert choice.waits == len({each.depth for each in exchanges if kept[each.place] > 0})


@pytest.mark.parametrize("round_trip", [0.0, 0.05, 0.4, 50.0])
def test_groups_of_layers_are_those_of_trying_all(round_trip: float) -> None:
    torch.set_num_threads(1)
    layers: list[nn.Module] = [nn.Conv2d(1, 4, 3, padding=1)]
    for size in (3, 5, 3, 3, 3):
        layers += [nn.ReLU(), nn.Conv2d(4, 4, size, padding=size // 2)]
    chain = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    captured = capture(chain, (torch.randn(2, 1, 24, 24),))
    states = row_states(lower(captured), SHARES, field="--layout")
    times, over = times_of_layers(captured), network(round_trip, bits=1e8)
    halos = row_groups.rows_of(states).halos
    assert len(halos) == 5
    best = min(
        row_groups._way(row_groups.rows_of(states, fused=fused), fused, times, over).milliseconds
        for count in range(len(halos) + 1)
        for fused in itertools.combinations(halos, count)
    )
    ways = row_groups.row_ways(states, times, over)
    assert min(way.milliseconds for way in ways) == pytest.approx(best)
    assert [way.waits for way in ways] == sorted(way.waits for way in ways)


def test_around_skips_the_ends_are_weighed() -> None:
    torch.set_num_threads(1)
    captured = captured_net("residual", "concatenation")
    states = row_states(lower(captured), SHARES, field="--layout")
    times = times_of_layers(captured)
    halos = row_groups.rows_of(states).halos
    for round_trip in (0.0, 0.1, 10.0):
        over = network(round_trip)
        best = min(way.milliseconds for way in row_groups.row_ways(states, times, over))
        for fused in ((), halos):
            assert best <= row_groups._way(row_groups.rows_of(states, fused=fused), fused, times, over).milliseconds


def test_the_link_shapes_the_plans() -> None:
    torch.set_num_threads(1)
    captured = captured_net("residual", "concatenation")
    times, losses = times_of_layers(captured), losses_of(captured)

    def found(round_trip: float, most: int | None = None) -> tuple[PlanSpec, ...]:
        return search(
            captured,
            SHARES,
            layout="Auto",
            times=times,
            losses=losses,
            network=network(round_trip),
            most_waits=most,
        ).specs

    near, far = found(0.0), found(100.0)
    for specs in (near, far):
        assert 0 < len(specs) <= MOST_PLANS
        assert [spec.milliseconds for spec in specs] == sorted((spec.milliseconds for spec in specs), reverse=True)
        assert [spec.loss for spec in specs] == sorted(spec.loss for spec in specs)
        assert specs[0].loss == 0
    assert max(spec.waits for spec in far) < max(spec.waits for spec in near)
    assert {spec.waits for spec in far} <= {0, 1}
    # A free link sends what is worth anything; by rows nothing is fused, as rows computed twice are the only cost.
    assert any(spec.rows_until is not None or spec.layout == "Rows" for spec in near)
    assert all(spec.waits <= 2 for spec in found(0.0, most=2))
    assert found(0.0) == near
    for spec in near:
        assert PlanSpec.read(json.loads(json.dumps(spec.document()))) == spec


def test_layers_are_timed_as_shards_have_them() -> None:
    torch.set_num_threads(1)
    captured = captured_net("grouped", "inverted")
    times = timed_layers(captured, (70, 30))
    assert set(times) == set(times_of_layers(captured))
    for each in times.values():
        figures = (each.whole, each.band, each.read, each.own, each.part)
        assert all(np.isfinite(figure) and figure > 0 for figure in figures)
        assert each.band_rows <= each.rows
        assert each.by_rows(each.rows) >= each.by_rows(each.band_rows)
        assert each.by_channels(1.0) >= each.by_channels(0.0)


def test_a_plan_keeps_what_was_found_for_each_exchange() -> None:
    torch.set_num_threads(1)
    captured = captured_net("residual", "concatenation")
    plans = PlanMaker(captured, samples(number=64), shares=SHARES)
    places = list(plans.whole.losses(KEEPS))
    assert plans.whole.losses([1.0])[places[0]] == (0.0,)
    keeps = {place: KEEPS[number % len(KEEPS)] for number, place in enumerate(places)}
    shaped = plans.whole.shape(keeps)
    sizes = {each.point.name: each for each in plans.whole.survey.exchanges}
    for name, into in shaped.ownership.bytes_in(plans.whole.divided).items():
        if name in sizes:
            owners = shaped.ownership.owner[sizes[name].point.block_units]
            for worker in range(2):
                dense = int(sizes[name].block_bytes[owners != worker].sum())
                assert into[worker] <= keeps[sizes[name].point.place] * dense
    spec = PlanSpec(
        layout="RowsThenChannels",
        rows_until="2.second.0",
        keeps=tuple(keeps.items()),
        milliseconds=1.0,
        loss=0.0,
        waits=3,
    )
    made = plans.made(spec, wire="UInt8")
    assert made.made.plan.rows_until == "2.second.0"
    assert made.made.plan.certificate is not None
    assert made.title.startswith("rows until 2.second.0, then channels, ")
