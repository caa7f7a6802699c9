"""What the agent reports is what the operator decides on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.contract.endpoint_report import (
    observation_of,
    profile_of,
    report_of_decision,
    report_of_observation,
    state_of,
    variant_status_of,
)
from edgefolio.contract.status_mapper import decimal_text
from edgefolio.decision import decide
from edgefolio.decision.types import (
    Action,
    Decision,
    MemoryState,
    Objectives,
    Observation,
    ProbeResult,
    Quarantine,
    Reason,
    ServerState,
    State,
    TrafficWindow,
    UpgradeBackoff,
    VariantProfile,
)
from edgefolio.specification.endpoint import EndpointStatus
from edgefolio.specification.serving import Switching

NOW = 1_800_000_000.0
NUMBERS = st.integers(0, 10**9).map(lambda thousandths: thousandths / 1000)
NAMES = st.sampled_from(["dense", "small", "a-b_c"])
TRAFFIC = st.builds(
    TrafficWindow,
    seconds=NUMBERS,
    requests=st.integers(0, 10**6),
    failures=st.integers(0, 10**6),
    executions=st.integers(0, 10**6),
    mean_compute_milliseconds=NUMBERS,
    mean_queue_milliseconds=NUMBERS,
    mean_total_milliseconds=NUMBERS,
    in_flight=NUMBERS,
    age_seconds=NUMBERS,
    p95_milliseconds=st.none() | NUMBERS,
)
BYTES = st.none() | st.integers(0, 2**50)
OBSERVATIONS = st.builds(
    Observation,
    active_variant=st.none() | NAMES,
    resident_variants=st.lists(NAMES, max_size=3, unique=True).map(tuple),
    server=st.sampled_from(ServerState),
    traffic=st.none() | TRAFFIC,
    probe=st.none() | st.builds(ProbeResult, variant=NAMES, compute_milliseconds=NUMBERS, age_seconds=NUMBERS),
    memory=st.none()
    | st.builds(
        MemoryState, limit_bytes=BYTES, working_set_bytes=BYTES, node_available_bytes=BYTES, age_seconds=NUMBERS
    ),
)


def reported(observation: Observation, *, valid_seconds: float = 30) -> EndpointStatus:
    """The status as the API server hands it out again: JSON."""
    status = EndpointStatus(
        active_variant=observation.active_variant,
        resident_variants=observation.resident_variants,
        observation=report_of_observation(observation, now=NOW, valid_seconds=valid_seconds),
    )
    return EndpointStatus.model_validate_json(status.model_dump_json(by_alias=True, exclude_none=True))


@given(OBSERVATIONS)
def test_an_observation_survives_the_way(observation: Observation) -> None:
    assert observation_of(reported(observation), now=NOW + 29) == observation


def test_ages_grow_only_after_the_report_has_run_out() -> None:
    probe = ProbeResult(variant="small", compute_milliseconds=2.0, age_seconds=1.0)
    observation = Observation(
        active_variant="small", resident_variants=("small",), server=ServerState.SERVING, probe=probe
    )
    status = reported(observation, valid_seconds=30)
    ages = [observation_of(status, now=NOW + seconds).probe.age_seconds for seconds in (0, 30, 31, 90)]
    assert ages == [1.0, 1.0, 2.0, 61.0]


def test_no_report_is_unknown_and_the_core_holds() -> None:
    status = EndpointStatus(active_variant="small", resident_variants=("small",))
    observation = observation_of(status, now=NOW)
    assert observation.server is ServerState.UNKNOWN
    decision, _ = decide(
        observation=observation,
        objectives=Objectives(latency_p95_milliseconds=10),
        profiles=(PROFILE,),
        switching=Switching(),
        state=State(),
        now=NOW,
    )
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.MISSING_METRICS)


def test_means_of_no_requests_are_no_error() -> None:
    window = TrafficWindow(
        seconds=5,
        requests=0,
        failures=0,
        executions=0,
        mean_compute_milliseconds=math.nan,
        mean_queue_milliseconds=math.nan,
        mean_total_milliseconds=math.inf,
        in_flight=math.nan,
        age_seconds=0,
        p95_milliseconds=math.nan,
    )
    idle = Observation(active_variant="a", resident_variants=("a",), server=ServerState.SERVING, traffic=window)
    traffic = observation_of(reported(idle), now=NOW).traffic
    assert traffic is not None
    assert (traffic.requests, traffic.mean_compute_milliseconds, traffic.p95_milliseconds) == (0, 0.0, None)


PROFILE = VariantProfile(
    name="small",
    rank=1,
    accuracy_percent=88.125,
    mean_milliseconds=2.5,
    p95_milliseconds=3.25,
    load_milliseconds=140.0,
    memory_peak_bytes=2**26,
    memory_steady_bytes=2**25,
)


def test_a_profile_survives_the_way() -> None:
    assert profile_of(variant_status_of(PROFILE)) == PROFILE


TIMES = st.integers(10**9, 2 * 10**9).map(float)
STATES = st.builds(
    State,
    compute_factor=st.integers(1, 100_000).map(lambda percent: percent / 100),
    transport_milliseconds=NUMBERS,
    arrival_variability=NUMBERS,
    arrival_rate=st.none() | NUMBERS,
    last_switch_at=st.none() | TIMES,
    recent_switches=st.lists(TIMES, max_size=16).map(tuple),
    quarantined=st.lists(
        st.builds(Quarantine, variant=NAMES, until=TIMES, failures=st.integers(1, 9), cause=st.text(max_size=500)),
        max_size=16,
    ).map(tuple),
    upgraded_variant=st.none() | NAMES,
    upgraded_at=st.none() | TIMES,
    upgrade_backoffs=st.lists(
        st.builds(UpgradeBackoff, variant=NAMES, until=TIMES, bounces=st.integers(1, 9)), max_size=16
    ).map(tuple),
)
HOLD = Decision(action=Action.HOLD, reason=Reason.OBJECTIVES_MET, target=None, message="x" * 2000, objectives_met=True)


@given(STATES)
def test_what_must_be_remembered_survives_the_way(state: State) -> None:
    report = report_of_decision(HOLD, state, decided_by_agent=True)
    again = type(report).model_validate_json(report.model_dump_json(by_alias=True, exclude_none=True))
    assert state_of(again) == state
    assert len(report.message) == 1024


def test_nothing_reported_is_nothing_remembered() -> None:
    assert state_of(None) == State()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (88.5, "88.5"), (1e-9, "0"), (1 / 3, "0.333333"), (1e300, "999999999"), (100.0, "100")],
)
def test_decimals(value: float, text: str) -> None:
    assert decimal_text(value) == text


def test_nan_is_no_decimal() -> None:
    with pytest.raises(ValueError, match="NaN"):
        decimal_text(math.nan)
