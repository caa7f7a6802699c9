"""What must hold over time, whatever the load does: bounded, no flapping, and rest under a steady load."""

from __future__ import annotations

import pytest
from building import NOW, by_name, traffic
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import PROFILES, Scenario, simulate
from strategies import switchings

from edgefolio.decision import decide, state_after_failure, state_after_switch
from edgefolio.decision.types import Action, Objectives, Observation, ServerState, State
from edgefolio.specification import Switching


@settings(max_examples=30)
@given(data=st.data(), switching=switchings, seed=st.integers(0, 1000))
def test_a_hostile_hour_never_spends_more_than_the_budget(data: st.DataObject, switching: Switching, seed: int) -> None:
    """Whatever the counters say, second by second, and however loads end."""
    switching = switching.model_copy(update={"policy": "Auto"})
    state, active, switches = State(), "large", []
    factors = data.draw(st.lists(st.sampled_from([0.2, 1.0, 2.0, 4.0, 9.0]), min_size=4, max_size=40))
    now = NOW
    for step in range(300):
        now += 12
        factor = factors[step % len(factors)]
        compute = by_name(active).mean_milliseconds * factor
        window = traffic(
            active,
            factor=factor,
            mean_queue_milliseconds=compute / 10,
            mean_total_milliseconds=compute * 1.1 + 0.5,
            in_flight=20 * compute / 1000,
            age_seconds=0,
        )
        decision, state = decide(
            observation=Observation(
                active_variant=active, resident_variants=(active,), server=ServerState.SERVING, traffic=window
            ),
            objectives=Objectives(latency_p95_milliseconds=15),
            profiles=PROFILES,
            switching=switching,
            state=state,
            now=now,
        )
        if decision.action is Action.SWITCH:
            assert decision.target is not None
            if (step * 7 + seed) % 5 == 0:
                state = state_after_failure(state, variant=decision.target, cause="test", now=now, switching=switching)
                continue
            assert not switches or now - switches[-1] >= switching.min_dwell_seconds
            switches.append(now)
            state = state_after_switch(state, variant=decision.target, now=now)
            active = decision.target
    for index, first in enumerate(switches):
        assert sum(first <= other < first + 3600 for other in switches[index:]) <= switching.max_switches_per_hour


@pytest.mark.parametrize("period", [20, 130, 400])
@pytest.mark.parametrize("kind", ["factor", "rate", "clients"])
def test_an_alternating_load_does_not_make_it_flap(period: int, kind: str) -> None:
    """Fifty minutes of load that turns just when the core might have settled; dwell and budget hardly bind here."""
    switching = Switching(down_after_seconds=5, up_after_seconds=30, min_dwell_seconds=10, max_switches_per_hour=3600)

    def heavy(seconds: float) -> bool:
        return seconds % period < period / 2

    scenario = Scenario(
        name="adversary",
        note="",
        seconds=3000,
        switching=switching,
        cycle_seconds=5,
        rate=lambda seconds: 0.0 if kind == "clients" else (40.0 if kind == "rate" and heavy(seconds) else 8.0),
        highest_rate=40,
        factor=lambda seconds: 3.0 if kind == "factor" and heavy(seconds) else 1.0,
        clients=lambda seconds: (6 if heavy(seconds) else 2) if kind == "clients" else 0,
        think_seconds=0.05,
    )
    run = simulate(scenario)
    upgrades = [at for at, reason, _ in run.switches if reason == "MoreAccurateFits"]
    half = len([at for at in upgrades if at < 1500])
    # Without the growing wait, each calm half of a period long enough would see an upgrade.
    assert len(upgrades) <= 24
    assert len(upgrades) - half <= half + 2
    assert len(run.switches) <= 2 * len(upgrades) + 6


@pytest.mark.parametrize("rate", [5, 20, 33, 40, 48, 75, 90])
def test_a_steady_load_settles(rate: int) -> None:
    """Half an hour of the same load, also at the borders between two variants: a few switches, and then none."""
    scenario = Scenario(
        name="steady",
        note="",
        seconds=1800,
        rate=lambda _: float(rate),
        highest_rate=rate,
        cycle_seconds=5,
        seed=rate,
        switching=Switching(),
    )
    run = simulate(scenario)
    assert len(run.switches) <= 5
    outside = [decision for _, decision in run.decisions if decision.objectives_met is False]
    assert len(outside) <= len(run.decisions) * 0.1
