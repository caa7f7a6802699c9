"""What must hold for any split and any set: slower links and missing figures never help one, and it has a fallback."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from building import NOW
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import (
    objectives_of,
    observations,
    optional,
    positive,
    profiles_of,
    sane_profiles,
    states,
    switchings,
    times,
    whole,
)

from edgefolio.decision import decide
from edgefolio.decision.choice import latency_budget
from edgefolio.decision.estimates.memory import needed_bytes
from edgefolio.decision.explain import explain_choice
from edgefolio.decision.types import (
    Action,
    Decision,
    FittingVariant,
    MemoryState,
    Objectives,
    Observation,
    Reason,
    ServerState,
    SplitProfile,
    StandbyReason,
    State,
    TrafficWindow,
    VariantProfile,
    WorkerSet,
)
from edgefolio.specification import Switching

EMERGENCIES = {
    Reason.INITIAL,
    Reason.SERVER_DEAD,
    Reason.UNKNOWN_ACTIVE_VARIANT,
    Reason.MEMORY_EXCEEDED,
    Reason.FAILURES,
    Reason.PINNED,
}
#: The figures without which a split is not taken.
FIGURES = ("round_trip_milliseconds", "bytes_per_second", "compute_factor", "arrival_rate")


#: Figures at which splits are taken and refused about as often.
amounts = st.integers(0, 10**9)
percents = st.floats(60, 100)


@st.composite
def split_profiles(draw: st.DrawFn) -> tuple[VariantProfile, ...]:
    """Variants of one node, and a split of any rank among them, most often the highest."""
    single = draw(st.one_of(sane_profiles, profiles_of(st.floats(1, 100), percents, amounts).filter(bool)))
    rank = draw(st.sampled_from([len(single) + 1, len(single) + 1, 0, 1]))
    mean = draw(st.floats(0.5, 20))
    split = VariantProfile(
        name="split",
        rank=rank,
        accuracy_percent=draw(percents),
        mean_milliseconds=mean,
        p95_milliseconds=mean * draw(st.floats(0.9, 2)),
        load_milliseconds=100,
        memory_peak_bytes=draw(amounts),
        memory_steady_bytes=draw(amounts),
        split=SplitProfile(
            workers=2,
            exchanges=draw(st.integers(0, 20)),
            bytes_into_busiest=draw(st.integers(0, 10**6)),
            input_bytes=draw(st.integers(1, 10**5)),
        ),
    )
    return (*single, split)


def sets(number: st.SearchStrategy[float] = positive) -> st.SearchStrategy[WorkerSet]:
    """Sets of the split, most of them ready and known."""
    return st.builds(
        WorkerSet,
        variant=st.sampled_from(["split", "split", "split", "other"]),
        rank=st.integers(0, 2),
        workers=st.sampled_from([2, 2, 2, 1, 3]),
        is_ready=st.sampled_from([True, True, True, False]),
        age_seconds=st.sampled_from([0.0, 1.0, 1e4]),
        round_trip_milliseconds=optional(st.floats(0, 100)),
        bytes_per_second=optional(st.floats(1e3, 1e10)),
        compute_factor=optional(st.floats(0.05, 50)),
        arrival_rate=optional(st.floats(0, 500)),
        own_compute_milliseconds=optional(number),
        own_jobs=st.integers(0, 500),
        split_answers=st.integers(0, 500),
        fallback_answers=st.integers(0, 500),
        fallback=optional(st.sampled_from(["tiny", "small", "gone"])),
    )


READY = st.builds(
    WorkerSet,
    variant=st.just("split"),
    rank=st.integers(0, 1),
    workers=st.just(2),
    is_ready=st.just(True),
    age_seconds=st.just(1.0),
    round_trip_milliseconds=st.floats(0, 5),
    bytes_per_second=st.floats(1e6, 1e10),
    compute_factor=st.floats(0.05, 5),
    arrival_rate=st.floats(0, 100),
)
SITUATION = {
    "objectives": st.builds(
        Objectives,
        latency_p95_milliseconds=optional(st.floats(1, 500)),
        min_accuracy_percent=optional(st.floats(50, 100)),
        max_memory_bytes=optional(st.integers(10**8, 10**10)),
    ),
    "profiles": split_profiles(),
    "switching": switchings,
    "factor": st.floats(0.05, 5),
    "rate": st.floats(0, 100),
    "limit": optional(st.integers(10**8, 10**10)),
}


@st.composite
def lively(draw: st.DrawFn) -> dict[str, Any]:
    """Inputs of a decision that waits for nothing: fresh metrics, long after the last switch, a set that is ready."""
    profiles = draw(split_profiles())
    active = draw(st.sampled_from(profiles))
    compute = draw(st.floats(0.5, 200))
    count = draw(st.integers(20, 400))
    window = TrafficWindow(
        seconds=5.0,
        requests=count,
        failures=0,
        executions=count,
        mean_compute_milliseconds=compute,
        mean_queue_milliseconds=draw(st.floats(0, 20)),
        mean_total_milliseconds=compute + 20.5,
        in_flight=draw(st.floats(0, 3)),
        age_seconds=0.5,
    )
    seen = Observation(
        active_variant=active.name,
        resident_variants=(active.name, *draw(st.lists(st.sampled_from(["tiny", "small"]), max_size=1))),
        server=ServerState.SERVING,
        traffic=window,
        memory=draw(
            optional(
                st.builds(
                    MemoryState,
                    limit_bytes=optional(st.integers(10**8, 10**10)),
                    working_set_bytes=optional(st.integers(0, 10**9)),
                    node_available_bytes=optional(st.integers(10**8, 10**10)),
                    age_seconds=st.just(0.0),
                )
            )
        ),
    )
    since = NOW - draw(st.sampled_from([0.0, 5.0, 100.0, 1000.0]))
    state = State(
        observed_at=NOW - 1,
        factor_updated_at=NOW - 1,
        compute_factor=draw(st.floats(0.2, 5)),
        violation_since=draw(st.sampled_from([None, since])),
        violation_requests=100.0,
        fitting=tuple(FittingVariant(variant=profile.name, since=since) for profile in profiles),
        peers_lost_since=draw(st.sampled_from([None, since])),
        late_fallback_since=draw(st.sampled_from([None, since])),
        recent_switches=tuple(draw(st.lists(st.floats(NOW - 4000, NOW - 500), max_size=14))),
    )
    return {
        "observation": seen,
        "profiles": profiles,
        "objectives": draw(SITUATION["objectives"]),
        "switching": Switching(max_switches_per_hour=12),
        "state": state,
    }


def choice(worker_set: WorkerSet | None, **situation: Any) -> str | None:
    return explain_choice(
        profiles=situation["profiles"],
        objectives=replace(situation["objectives"], pinned_variant=None),
        switching=situation["switching"],
        compute_factor=situation["factor"],
        arrival_rate=situation["rate"],
        memory_bytes=situation["limit"],
        worker_set=worker_set,
    ).chosen


@settings(max_examples=400)
@given(offered=READY, slower=st.floats(0, 50), narrower=st.floats(1, 1e4), busier=st.floats(1, 10), **SITUATION)
def test_a_slower_link_or_worker_never_makes_a_split_more_attractive(
    offered, slower, narrower, busier, **situation
) -> None:
    worse = replace(
        offered,
        round_trip_milliseconds=offered.round_trip_milliseconds + slower,
        bytes_per_second=offered.bytes_per_second / narrower,
        compute_factor=min(1000.0, offered.compute_factor * busier),
    )
    if choice(worse, **situation) == "split":
        assert choice(offered, **situation) == "split"


@settings(max_examples=300)
@given(
    offered=READY, slower=st.floats(0, 50), narrower=st.floats(1, 1e4), seen=observations(positive, whole), **SITUATION
)
def test_an_endpoint_does_not_take_a_split_for_its_link_being_slower(
    offered, slower, narrower, seen, **situation
) -> None:
    worse = replace(
        offered,
        round_trip_milliseconds=offered.round_trip_milliseconds + slower,
        bytes_per_second=offered.bytes_per_second / narrower,
    )
    assume(seen.active_variant != "gone")
    taken = [
        decided(replace(seen, worker_set=each), state=State(), **situation)[0].target == "split"
        for each in (worse, offered)
    ]
    assert taken != [True, False]


@settings(max_examples=300)
@given(offered=READY, missing=st.sampled_from([*FIGURES, "set"]), **SITUATION)
def test_a_missing_figure_never_adds_a_split(offered, missing, **situation) -> None:
    known = None if missing == "set" else replace(offered, **{missing: None})
    assert choice(known, **situation) != "split"
    # Nor does it take one away that is not there: what is chosen without the split is chosen without the figure.
    assert choice(known, **situation) == choice(None, **situation)


@pytest.mark.parametrize("figure", FIGURES)
@settings(max_examples=100)
@given(offered=READY, value=st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e300]), **SITUATION)
def test_a_figure_that_makes_no_sense_never_adds_a_split(figure, offered, value, **situation) -> None:
    assume((figure, value) != ("bytes_per_second", 1e300))
    assert choice(replace(offered, **{figure: value}), **situation) != "split"


def decided(seen: Observation, *, state: State, **situation: Any) -> tuple[Decision, State]:
    return decide(
        observation=seen,
        objectives=replace(situation["objectives"], pinned_variant=None),
        profiles=situation["profiles"],
        switching=situation["switching"],
        state=state,
        now=NOW,
        with_standby=True,
    )


@settings(max_examples=600)
@given(inputs=lively(), worker_set=st.one_of(READY, READY, sets(), st.none()), answered=st.integers(0, 100))
def test_a_split_is_taken_only_whole_and_with_a_fallback(inputs, worker_set, answered) -> None:
    seen, state, switching = inputs["observation"], inputs["state"], inputs["switching"]
    serves = seen.active_variant == "split"
    if serves and worker_set is not None:
        worker_set = replace(worker_set, fallback="tiny", split_answers=100 - answered, fallback_answers=answered)
    seen = replace(seen, worker_set=worker_set)
    decision, after = decide(**inputs | {"observation": seen}, now=NOW, with_standby=True)
    if decision.action is Action.SWITCH and decision.reason not in EMERGENCIES:
        recent = [time for time in state.recent_switches if NOW - time < 3600]
        assert len(recent) < switching.max_switches_per_hour
    assert decision.standby is not None
    assert decision.standby.variant != "split"
    if serves:
        lost = worker_set is None or not worker_set.is_ready or worker_set.age_seconds > switching.stale_after_seconds
        assert decision.reason is not Reason.PEERS_LOST or lost or answered >= 50 or decision.objectives_met is False
        assert decision.served_accuracy_percent is not None
        check_fallback(decision, inputs["profiles"], inputs["objectives"], seen)
    if decision.target != "split" or decision.action is Action.HOLD or serves:
        return
    assert worker_set is not None
    assert (worker_set.variant, worker_set.workers, worker_set.is_ready) == ("split", 2, True)
    assert worker_set.age_seconds <= switching.stale_after_seconds
    assert all(getattr(worker_set, name) is not None for name in FIGURES)
    assert after.upgraded_variant == "split", "leaving it soon is a bounce"
    assert decision.fallback is not None
    assert decision.standby.reason is StandbyReason.BESIDE_SHARD
    check_fallback(decision, inputs["profiles"], inputs["objectives"], seen)


def check_fallback(
    decision: Decision, profiles: tuple[VariantProfile, ...], objectives: Objectives, seen: Observation
) -> None:
    """The abandon time and the memory of shard and fallback, worked out on their own."""
    fallback = decision.fallback if decision.action is Action.HOLD or decision.target == "split" else None
    if fallback is None:
        return
    beside = next(profile for profile in profiles if profile.name == fallback.variant)
    assert beside.split is None
    budget = latency_budget(objectives)
    assert 0 < fallback.abandon_milliseconds <= 3_600_000
    if budget is None:
        assert fallback.abandon_milliseconds >= 100
    elif fallback.is_in_time:
        assert fallback.p95_milliseconds is not None
        assert fallback.predicted_milliseconds is not None
        assert fallback.abandon_milliseconds + fallback.p95_milliseconds <= budget * (1 + 1e-9)
        assert fallback.abandon_milliseconds >= fallback.predicted_milliseconds * (1 - 1e-9)
    else:
        assert fallback.abandon_milliseconds >= 50
    minimum = objectives.min_accuracy_percent
    if seen.memory is None and minimum is not None and objectives.max_memory_bytes is None:
        best = max(profile.accuracy_percent for profile in profiles if profile.split is None)
        assert beside.accuracy_percent >= minimum or best < minimum, "below the minimum while another exists"
    if seen.memory is None or decision.action is Action.HOLD:
        return
    needed = needed_bytes(next(profile for profile in profiles if profile.split)) + needed_bytes(beside)
    standbys = {*seen.resident_variants} - {seen.active_variant}
    freed = sum(profile.memory_steady_bytes for profile in profiles if profile.name in standbys)
    limit, used, node = seen.memory.limit_bytes, seen.memory.working_set_bytes, seen.memory.node_available_bytes
    assert limit is None or (used or 0) + needed <= limit + freed
    assert node is None or needed <= node + freed


@settings(max_examples=200)
@given(
    profiles=split_profiles(),
    objectives=objectives_of(positive),
    state=states(times),
    seen=observations(positive, whole),
)
def test_without_a_set_a_portfolio_with_a_split_decides_as_one_without(profiles, objectives, state, seen) -> None:
    assume(seen.active_variant != "split")
    arguments = {"observation": seen, "objectives": objectives, "switching": Switching(), "state": state, "now": NOW}
    with_split, state_with = decide(**arguments, profiles=profiles, with_standby=True)
    without, state_without = decide(**arguments, profiles=profiles[:-1], with_standby=True)
    assert (with_split.action, with_split.target, with_split.standby) == (
        without.action,
        without.target,
        without.standby,
    )
    assert state_with == state_without
