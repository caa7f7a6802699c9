"""Compute factors of single variants: learned when they are probed as standby, and kept."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from building import NOW, by_name, decided, observation, traffic
from simulator import PROFILES

from edgefolio.decision import state_from_json, state_to_json
from edgefolio.decision.estimates.own_factors import own_factor
from edgefolio.decision.profiles import rescaled
from edgefolio.decision.types import Decision, Objectives, OwnFactor, ProbeResult, State

ASKED = Objectives(latency_p95_milliseconds=1000.0)


class Node:
    """A node on which each variant is slower than profiled by a factor of all and by one of its own; 5 % noise."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.own = {profile.name: math.exp(self.chance.uniform(-0.5, 0.7)) for profile in PROFILES}
        self.slower = 1.0
        self.now = NOW
        self.state = State()

    def factor(self, variant: str) -> float:
        return self.slower * self.own[variant] * math.exp(self.chance.gauss(0, 0.05))

    def serves(self, variant: str, *, seconds: int, standby: str | None = None) -> Decision:
        """``variant`` serves for some seconds; the ``standby`` is probed every ten."""
        for second in range(seconds):
            probe = None
            if standby is not None and second % 10 == 0:
                time = by_name(standby).mean_milliseconds * self.factor(standby)
                probe = ProbeResult(variant=standby, compute_milliseconds=time, age_seconds=0.0)
            self.now += 1
            decision, self.state = decided(
                observation(
                    variant,
                    resident_variants=tuple({variant, standby or variant}),
                    traffic=traffic(variant, factor=self.factor(variant), rate=2),
                    standby_probe=probe,
                ),
                objectives=ASKED,
                state=self.state,
                now=self.now,
            )
        return decision

    def errors(self, decision: Decision, names: set[str]) -> list[float]:
        """Relative errors of the predicted times of variants that do not serve, without a queue."""
        found = []
        for entry in decision.predictions:
            if entry.variant in names:
                profile = by_name(entry.variant)
                true = profile.p95_milliseconds * self.slower * self.own[entry.variant] + 0.5
                assert entry.p95_milliseconds is not None
                found.append(abs(entry.p95_milliseconds / true - 1))
        return found


@pytest.mark.parametrize("slower", [1.0, 2.0, 4.0, 8.0])
def test_a_standby_that_was_probed_is_predicted_on_a_slower_node(slower: float) -> None:
    learned, unlearned = [], []
    for seed in range(30):
        node = Node(seed)
        node.serves("large", seconds=30, standby="small")
        node.slower = slower
        # The standby is not probed while the node is slow.
        decision = node.serves("large", seconds=20)
        learned += node.errors(decision, {"small"})
        node.state = replace(node.state, own_factors=())
        unlearned += node.errors(node.serves("large", seconds=1), {"small"})
    assert statistics.median(learned) <= 0.15
    assert statistics.median(unlearned) > 0.25, "one factor for all"


def test_each_probe_counts_once_and_nonsense_never() -> None:
    state = State(observed_at=NOW - 1)

    def probed(age: float, milliseconds: float = 16.0, variant: str = "small") -> State:
        probe = ProbeResult(variant=variant, compute_milliseconds=milliseconds, age_seconds=age)
        seen = observation("large", traffic=traffic("large"), standby_probe=probe)
        return decided(seen, state=state, objectives=ASKED)[1]

    assert own_factor(probed(0.5), "small") > 1.5
    for found in (probed(1.5), probed(-1), probed(math.nan), probed(0.5, math.inf), probed(0.5, 0.0)):
        assert found.own_factors == ()
    assert probed(0.5, variant="large").own_factors == ()
    assert probed(0.5, variant="gone").own_factors == ()


def test_it_is_kept_over_restarts_and_forgotten_with_the_profile() -> None:
    state = State(own_factors=(OwnFactor(variant="small", factor=1.7),))
    assert state_from_json(state_to_json(state)) == state
    assert rescaled(state, before=PROFILES, after=PROFILES, active="large").own_factors == ()
    wild = State(own_factors=(OwnFactor(variant="small", factor=math.nan), OwnFactor(variant="mid", factor=-1.0)))
    assert decided(observation("large"), state=wild)[1].own_factors == ()


def test_both_are_asked_in_the_same_way_and_a_neighbour_that_comes_in_between_is_no_property() -> None:
    state = State(observed_at=NOW - 1)

    def learned(factor: float, **fields: float) -> float:
        """What is learned of small, 1.5 times slower than large, whose users' requests show a ``factor``."""
        probe = ProbeResult(variant="small", compute_milliseconds=4.0 * 1.5, age_seconds=0.5, **fields)
        seen = observation("large", traffic=traffic("large", factor=factor), standby_probe=probe)
        return own_factor(decided(seen, state=state, objectives=ASKED)[1], "small")

    for factor in (0.8, 1.0, 3.0):
        assert learned(factor, beside_milliseconds=10.0) == pytest.approx(math.sqrt(1.5))
    assert learned(3.0) < 1, "the users' requests met the neighbour, and the probe did not"
    for nonsense in (math.nan, math.inf, -1.0, 0.0):
        assert learned(1.0, beside_milliseconds=nonsense) == pytest.approx(math.sqrt(1.5)), "as without it"
    before = replace(state, compute_factor=1.0, factor_updated_at=NOW - 0.1)
    probe = ProbeResult(variant="small", compute_milliseconds=6.0, age_seconds=0.05)
    seen = observation("large", traffic=traffic("large", factor=4.0), standby_probe=probe)
    assert decided(seen, state=before, objectives=ASKED)[1].own_factors == ()
