"""Sets of workers in virtual time: the prediction against simulated requests, lost peers, and links that flap."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from set_simulator import SetScenario, latencies, simulate_set
from simulator import SWITCHING
from splits import SPLIT

from edgefolio.decision.estimates.prediction import UTILIZATION_CAP, Conditions, expected_latency
from edgefolio.decision.types import Objectives, Reason
from edgefolio.specification import Switching

#: Large takes 24 ms on a node twice as slow, where nothing else is accurate enough: what a split is for.
NEEDED = Objectives(latency_p95_milliseconds=22.0, min_accuracy_percent=91.0)
#: Tiny, small and mid do as well.
OPTIONAL = Objectives(latency_p95_milliseconds=26.0, min_accuracy_percent=80.0)


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("utilization", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("transfer", [0.5, 4.0])
def test_the_prediction_holds_against_simulated_requests(factor: float, utilization: float, transfer: float) -> None:
    whole = SPLIT.mean_milliseconds * factor + 0.6 + transfer
    # Both limits of what the entries can take: the slowest worker's computing, and one request at a time.
    rate = min(1000 * utilization / (2 * SPLIT.mean_milliseconds * factor), 1000 * utilization / whole)
    seen = sorted(
        latencies(rates=(rate, rate), factors=(factor, 0.7 * factor), round_trip=0.2, transfer=transfer, requests=8_000)
    )
    found = expected_latency(
        SPLIT,
        Conditions(
            compute_factor=factor,
            arrival_rate=rate,
            rate_of_all_entries=2 * rate,
            network_milliseconds=0.6 + transfer,
        ),
    )
    assert found.p95_milliseconds is not None
    assert found.utilization is not None
    assert found.utilization <= UTILIZATION_CAP
    measured = seen[int(0.95 * len(seen))]
    assert 0.75 <= found.p95_milliseconds / measured <= 1.3, f"predicted {found.p95_milliseconds}, seen {measured}"


def test_what_one_node_cannot_do_is_served_split_and_falls_back_while_a_peer_is_lost() -> None:
    scenario = SetScenario(
        seconds=900, objectives=NEEDED, factor=lambda _: 2.0, linked=lambda at: not 400 <= at < 500, first="large"
    )
    run = simulate_set(scenario)
    assert run.served(100, 400) == {"split"}
    assert run.served(401, 402 + SWITCHING.down_after_seconds) == {"large"}, "the fallback, without waiting"
    switches = [(reason, target) for _, reason, target in run.switches]
    assert switches == [("LatencyViolated", "split"), ("PeersLost", "large"), ("LatencyViolated", "split")]
    assert run.served(700, 900) == {"split"}
    late = next(decision for at, decision in run.decisions if at > 100)
    assert late.fallback is not None
    assert (late.fallback.variant, late.fallback.is_in_time) == ("large", False)


def test_where_one_node_does_as_well_the_split_leaves_the_time_to_fall_back() -> None:
    run = simulate_set(SetScenario(seconds=300, objectives=OPTIONAL, factor=lambda _: 2.0, first="mid"))
    assert run.served(200, 300) == {"split"}
    found = run.decisions[-1][1].fallback
    assert found is not None
    assert found.is_in_time
    assert found.p95_milliseconds is not None
    assert found.abandon_milliseconds == pytest.approx(26.0 - found.p95_milliseconds)


def test_a_link_that_becomes_slow_is_left_for_latency() -> None:
    slow = SetScenario(
        seconds=600,
        objectives=OPTIONAL,
        factor=lambda _: 2.0,
        bytes_per_second=lambda at: 125e6 if at < 300 else 2.5e6,
        first="mid",
    )
    run = simulate_set(slow)
    assert run.served(200, 300) == {"split"}
    assert run.switches[-1][1] == "LatencyViolated"
    assert "split" not in run.served(330, 600)


def test_a_neighbour_of_this_worker_is_seen_in_its_own_computing() -> None:
    scenario = SetScenario(seconds=400, objectives=OPTIONAL, factor=lambda at: 2.0 if at < 200 else 6.0, first="mid")
    run = simulate_set(scenario)
    factors = {at: decision.compute_factor for at, decision in run.decisions}
    assert factors[190] == pytest.approx(2.0, rel=0.05)
    assert max(value for value in factors.values() if value is not None) == pytest.approx(6.0, rel=0.1)
    assert run.served(350, 400) <= {"tiny", "small"}


@pytest.mark.parametrize("period", [12, 400])
@pytest.mark.parametrize("objectives", [NEEDED, OPTIONAL])
def test_a_link_that_flaps_regularly_costs_few_switches(period: int, objectives: Objectives) -> None:
    run = simulate_set(
        SetScenario(
            seconds=2 * 3600,
            step=3.0,
            objectives=objectives,
            factor=lambda _: 2.0,
            linked=lambda at: int(at // (period / 2)) % 2 == 0,
            first="large",
        )
    )
    # Each return waits twice as long as the one before, up to an hour.
    assert run.most_switches_in(3600) <= SWITCHING.max_switches_per_hour
    last_hour = [entry for entry in run.switches if entry[0] > 3600]
    # One that holds for longer than a bounce starts anew: then the budget alone bounds it.
    assert period > 100 or len(last_hour) <= 8


phases = st.lists(
    st.tuples(st.floats(1, 400), st.booleans(), st.booleans(), st.sampled_from([125e6, 12.5e6, 1e6])),
    min_size=2,
    max_size=60,
)


@settings(max_examples=5)
@given(
    phases=phases,
    objectives=st.sampled_from([NEEDED, OPTIONAL]),
    switching=st.sampled_from(
        [SWITCHING, Switching(up_after_seconds=5, down_after_seconds=1, min_dwell_seconds=0, max_switches_per_hour=6)]
    ),
)
def test_no_adversary_of_the_link_makes_more_switches_than_the_hourly_budget(phases, objectives, switching) -> None:
    ends, total = [], 0.0
    for length, linked, offered, rate in phases:
        total += length
        ends.append((total, linked, offered, rate))

    def phase(at: float) -> tuple[float, bool, bool, float]:
        return next(entry for entry in ends if at % total < entry[0])

    run = simulate_set(
        SetScenario(
            seconds=4200,
            step=3.0,
            objectives=objectives,
            factor=lambda _: 2.0,
            linked=lambda at: phase(at)[1],
            offered=lambda at: phase(at)[2],
            bytes_per_second=lambda at: phase(at)[3],
            switching=switching,
        )
    )
    assert run.most_switches_in(3600) <= switching.max_switches_per_hour
    for at, decision in run.decisions:
        assert decision.reason is not Reason.MISSING_METRICS, at
        if decision.target == "split" and decision.action.value == "Switch":
            assert phase(at)[1], "never while it is not linked"
            assert phase(at)[2]
