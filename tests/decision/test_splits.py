"""Splits among the candidates: prediction, what bars them, the fallback beside the shard, and what is really served."""

from __future__ import annotations

from dataclasses import replace

import pytest
from building import NOW, by_name, decided, memory, observation, repeated, traffic
from simulator import MEBIBYTE, PROFILES, SWITCHING
from splits import NETWORK_MILLISECONDS, SPLIT, WITH_SPLIT, serving, workers

from edgefolio.decision.estimates.network import network_milliseconds, slowest_factor
from edgefolio.decision.explain import Explanation, explain_choice
from edgefolio.decision.recording.replay import replay
from edgefolio.decision.recording.traces import TraceCycle, cycle_line, header_line, parse_trace
from edgefolio.decision.splits.fallback import abandoning
from edgefolio.decision.types import (
    Decision,
    Objectives,
    Observation,
    Prediction,
    ProbeResult,
    Reading,
    Reason,
    ServerState,
    StandbyReason,
    State,
    WorkerSet,
)

#: Met by the split (p95 8.8 ms, with the time for tiny), by the three small variants, not safely by large (12 ms).
TIGHT = Objectives(latency_p95_milliseconds=12.5, min_accuracy_percent=85.0)


def explained(
    worker_set: WorkerSet | None, *, objectives: Objectives = TIGHT, factor: float = 1.0, memory_mebibytes: int = 1000
) -> Explanation:
    return explain_choice(
        profiles=WITH_SPLIT,
        objectives=objectives,
        switching=SWITCHING,
        compute_factor=factor,
        memory_bytes=memory_mebibytes * MEBIBYTE,
        worker_set=worker_set,
    )


def of_split(found: Explanation) -> Prediction:
    return next(entry.prediction for entry in found.variants if entry.profile.name == "split")


def split_observation(worker_set: WorkerSet | None, *, rate: float = 10.0, **fields: object) -> Observation:
    """The split serves; its requests take 6.2 ms of Triton's computing, the wait for the peer in it."""
    window = traffic("large", rate=rate, mean_compute_milliseconds=6.2, mean_total_milliseconds=6.7)
    found = observation(None, traffic=window, worker_set=worker_set, **fields)
    return replace(found, active_variant="split", resident_variants=("split",))


def seen(worker_set: WorkerSet | None, *, seconds: float, **arguments: object) -> tuple[Decision, State]:
    settings: dict[str, object] = {"profiles": WITH_SPLIT, "objectives": TIGHT, "state": State(), **arguments}
    return repeated(split_observation(worker_set), seconds=seconds, **settings)  # type: ignore[arg-type]


def test_the_prediction_is_the_slowest_workers_computing_and_what_travels() -> None:
    assert SPLIT.split is not None
    assert network_milliseconds(SPLIT.split, workers()) == pytest.approx(NETWORK_MILLISECONDS)
    idle = of_split(explained(workers(arrival_rate=0.0)))
    assert idle.p95_milliseconds == pytest.approx(6.0 + NETWORK_MILLISECONDS)
    slow = of_split(explained(workers(arrival_rate=0.0, compute_factor=2.0)))
    assert slow.p95_milliseconds == pytest.approx(12.0 + NETWORK_MILLISECONDS), "the link is no slower"
    own = of_split(explained(workers(arrival_rate=0.0), factor=3.0))
    assert own.p95_milliseconds == pytest.approx(18.0 + NETWORK_MILLISECONDS), "this node is a worker, too"


def test_workers_are_busy_with_the_requests_of_all_entries() -> None:
    alone, all_entries = of_split(explained(workers(arrival_rate=20.0))), of_split(explained(workers(arrival_rate=120)))
    assert alone.utilization == pytest.approx(0.1)
    assert all_entries.utilization == pytest.approx(0.6)
    assert all_entries.p95_milliseconds > alone.p95_milliseconds  # type: ignore[operator]
    full = of_split(explained(workers(arrival_rate=180.0)))
    assert (full.meets_latency, "busy 90 %" in full.verdict) == (False, True)


def test_a_ready_set_makes_the_split_the_most_accurate_that_fits() -> None:
    assert explained(None).chosen == "mid"
    assert explained(workers()).chosen == "split"


@pytest.mark.parametrize(
    ("worker_set", "why"),
    [
        (None, "no set of workers is offered"),
        (workers(variant="other"), "is for other"),
        (workers(workers=1), "has 1 of 2 workers"),
        (workers(rank=2), "has 2 of 2 workers"),
        (workers(is_ready=False, reason="a peer is\nsilent"), "not linked (a peer is"),
        (workers(age_seconds=1000.0), "1000 s old"),
        (workers(age_seconds=float("nan")), "nan s old"),
        (workers(round_trip_milliseconds=None), "the round trip"),
        (workers(bytes_per_second=None), "the bandwidth"),
        (workers(bytes_per_second=0.0), "the bandwidth"),
        (workers(compute_factor=None), "the compute factor"),
        (workers(arrival_rate=None), "the arrival rate"),
    ],
)
def test_peers_that_are_not_ready_bar_the_split(worker_set: WorkerSet | None, why: str) -> None:
    found = explained(worker_set)
    prediction = of_split(found)
    assert found.chosen == "mid"
    assert (prediction.barred, why in prediction.verdict) == (Reason.PEERS_NOT_READY, True)
    assert next(entry for entry in found.variants if entry.profile.name == "split").remedies


def test_without_the_time_to_fall_back_one_node_that_meets_the_objectives_is_kept() -> None:
    # Not even tiny's 2.4 ms fit beside 7.1 ms, and mid meets 8.5 ms by itself.
    hasty = replace(TIGHT, latency_p95_milliseconds=8.5)
    unhurried = workers(arrival_rate=0.0)
    found = explained(unhurried, objectives=hasty)
    assert (found.chosen, of_split(found).barred) == ("mid", Reason.NO_TIME_TO_FALL_BACK)
    # With a minimum that mid does not reach no node meets the objectives, which is what the split is for.
    needed = replace(hasty, min_accuracy_percent=91.0)
    found = explained(unhurried, objectives=needed)
    (entry,) = [entry for entry in found.variants if entry.chosen]
    assert (found.chosen, found.objectives_met) == ("split", True)
    assert entry.split is not None
    assert entry.split.fallback is not None
    assert (entry.split.fallback.variant, entry.split.fallback.is_in_time) == ("large", False)
    assert "late" in entry.why
    # A fallback in time that is too inaccurate would break the minimum, which one node keeps.
    accurate = replace(TIGHT, min_accuracy_percent=90.0)
    found = explained(workers(), objectives=accurate)
    assert of_split(found).barred is Reason.NO_TIME_TO_FALL_BACK, "mid takes 7.2 of the 3.7 ms that are left"


def test_of_the_fallbacks_in_time_the_most_accurate_and_of_the_late_ones_the_fastest() -> None:
    def fallback(milliseconds: float, minimum: float | None = None, mebibytes: int = 1000) -> tuple[str, float, bool]:
        asked = Objectives(latency_p95_milliseconds=milliseconds, min_accuracy_percent=minimum)
        found = explained(workers(arrival_rate=0.0), objectives=asked, memory_mebibytes=mebibytes)
        split = next(entry.split for entry in found.variants if entry.profile.name == "split")
        assert split is not None
        assert split.fallback is not None
        return split.fallback.variant, split.fallback.abandon_milliseconds, split.fallback.is_in_time

    assert fallback(30.0) == ("large", pytest.approx(18.0), True)
    assert fallback(15.0) == ("mid", pytest.approx(7.8), True)
    assert fallback(30.0, mebibytes=90) == ("mid", pytest.approx(22.8), True), "large does not fit beside the shard"
    # Late in any case: twice the prediction, at least 50 ms.
    assert fallback(8.0) == ("tiny", pytest.approx(50.0), False)
    assert fallback(8.0, minimum=90.0) == ("mid", pytest.approx(50.0), False), "never below the minimum"
    assert fallback(8.0, minimum=99.0)[0] == "large", "none reaches it: the nearest"


def test_the_abandon_time_is_what_the_issue_of_deadlines_says() -> None:
    def after(budget: float | None, predicted: float | None, fallback: float | None, in_time: bool) -> float:
        found = abandoning("x", budget=budget, predicted=predicted, fallback=fallback, is_in_time=in_time)
        return found.abandon_milliseconds

    assert after(100.0, 30.0, 20.0, True) == 80.0
    assert after(100.0, 90.0, 20.0, False) == 180.0
    assert after(100.0, 20.0, 90.0, False) == 50.0
    assert after(100.0, None, 20.0, False) == 50.0
    assert after(None, 10.0, 20.0, True) == 100.0
    assert after(None, 30.0, 20.0, True) == 150.0
    assert after(1e9, 1e8, 1.0, True) == 3_600_000.0


def test_shard_and_fallback_need_memory_together_and_once() -> None:
    found = explained(workers(), memory_mebibytes=60)
    assert of_split(found).fits_memory, "32 MiB and tiny's 20, of 60 less the headroom"
    short = explained(workers(), memory_mebibytes=50)
    assert "needs 52.0 MiB (shard 32.0 MiB, its fallback tiny 20.0 MiB)" in of_split(short).verdict
    assert short.chosen == "mid"
    # Beside what is loaded: the amounts are in the decision.
    used = memory(limit=150, used=100)
    asked = Objectives(latency_p95_milliseconds=30.0, min_accuracy_percent=91.55)
    blocked = observation("large", memory=used, worker_set=workers())
    decision, _ = decided(blocked, profiles=WITH_SPLIT, objectives=asked)
    assert decision.reason is Reason.INSUFFICIENT_SWITCH_MEMORY
    assert "shard 32.0 MiB, its fallback tiny 20.0 MiB" in decision.message
    # While it serves, its memory is that of both, which the working set holds already.
    served = split_observation(serving(), memory=memory(limit=60, used=46))
    decision, _ = decided(served, profiles=WITH_SPLIT, objectives=TIGHT)
    assert decision.reason is not Reason.MEMORY_EXCEEDED
    decision, _ = decided(served, profiles=WITH_SPLIT, objectives=replace(TIGHT, max_memory_bytes=51 * MEBIBYTE))
    assert (decision.reason, decision.target) == (Reason.INSUFFICIENT_SWITCH_MEMORY, "tiny")


def test_the_fallback_beside_the_shard_is_the_standby() -> None:
    up = Objectives(latency_p95_milliseconds=30.0)
    seen_large = observation("large", resident_variants=("tiny", "large"), worker_set=workers())
    decision, _ = repeated(seen_large, seconds=60, profiles=WITH_SPLIT, objectives=up)
    assert (decision.reason, decision.target) == (Reason.MORE_ACCURATE_FITS, "split")
    assert decision.standby is not None
    assert decision.fallback is not None
    assert (decision.standby.variant, decision.standby.reason) == (None, StandbyReason.BESIDE_SHARD)
    assert decision.fallback.variant == "large"
    decision, _ = seen(serving(), seconds=60)
    assert decision.standby is not None
    assert (decision.standby.variant, decision.standby.reason) == (None, StandbyReason.BESIDE_SHARD)
    # What left a split is no standby: a shard alone would be loaded for nothing.
    down, _ = seen(serving(is_ready=False), seconds=60)
    assert (down.reason, down.target) == (Reason.PEERS_LOST, "mid")
    assert down.standby is not None
    assert down.standby.variant is None


def test_a_fallback_that_does_is_not_exchanged() -> None:
    decision, _ = seen(serving(fallback="tiny"), seconds=5)
    assert decision.fallback is not None
    assert decision.fallback.variant == "tiny"
    relaxed = replace(TIGHT, latency_p95_milliseconds=30.0)
    decision, _ = seen(serving(fallback="tiny"), seconds=5, objectives=relaxed)
    assert decision.fallback is not None
    assert decision.fallback.variant == "tiny", "large would be in time as well"
    strict = replace(relaxed, min_accuracy_percent=90.0)
    decision, _ = seen(serving(fallback="tiny"), seconds=5, objectives=strict)
    assert decision.fallback is not None
    assert decision.fallback.variant == "large", "tiny is below the minimum"


def test_the_compute_factor_comes_from_what_the_worker_computed() -> None:
    # Triton counts 6.2 ms, and a neighbour makes this worker's 5 ms take 15.
    _, state = seen(serving(own_compute_milliseconds=15.0), seconds=30, objectives=Objectives())
    assert state.compute_factor == pytest.approx(3.0, rel=0.01)
    _, state = seen(serving(rank=1, own_compute_milliseconds=8.0), seconds=30, objectives=Objectives())
    assert state.compute_factor == pytest.approx(2.0, rel=0.01), "the other shard takes 4 ms in its profile"
    for unknown in (None, float("nan"), -1.0):
        before = State(compute_factor=1.7, observed_at=NOW - 1, factor_updated_at=NOW - 1)
        silent = serving(own_compute_milliseconds=unknown)
        _, state = seen(silent, seconds=30, state=before, objectives=Objectives())
        assert state.compute_factor == 1.7, "and not Triton's 1.24"


def test_readings_and_probes_of_a_split_say_nothing_of_the_node() -> None:
    waits = Reading(
        seconds=0.25,
        requests=5,
        mean_compute_milliseconds=60.0,
        mean_queue_milliseconds=0.0,
        mean_total_milliseconds=60.5,
    )
    slow = split_observation(serving(), probe=ProbeResult(variant="split", compute_milliseconds=99.0, age_seconds=0.1))
    slow = replace(slow, traffic=replace(slow.traffic, readings=(waits,) * 4))  # type: ignore[type-var]
    state = State()
    for second in range(10):
        _, state = decided(slow, profiles=WITH_SPLIT, objectives=Objectives(), state=state, now=NOW + second)
    assert state.compute_factor == pytest.approx(1.0)
    assert state.computing.pairs == 0


def test_accuracy_is_that_of_what_was_really_served() -> None:
    decision, _ = seen(serving(), seconds=5)
    assert decision.served_accuracy_percent == pytest.approx(91.6)
    half = serving(split_answers=60, fallback_answers=40)
    decision, _ = seen(half, seconds=5)
    assert decision.served_accuracy_percent == pytest.approx(0.6 * 91.6 + 0.4 * 85.0)
    strict = replace(TIGHT, min_accuracy_percent=90.0)
    decision, _ = decided(split_observation(half), profiles=WITH_SPLIT, objectives=strict)
    assert decision.objectives_met is False
    decision, _ = seen(half, seconds=60, objectives=strict)
    assert (decision.reason, decision.target) == (Reason.PEERS_LOST, "mid")
    assert "88.96 % of accuracy are served" in decision.message
    decision, _ = decided(observation("large"), profiles=WITH_SPLIT)
    assert decision.served_accuracy_percent == 91.5


def test_lost_peers_are_waited_for_and_then_left() -> None:
    lost = serving(is_ready=False, reason="circuit open", split_answers=0, fallback_answers=100)
    decision, _ = decided(split_observation(lost), profiles=WITH_SPLIT, objectives=TIGHT)
    assert (decision.reason, decision.target) == (Reason.PEERS_NOT_READY, None)
    assert "tiny" in decision.message
    assert "circuit open" in decision.message
    decision, state = seen(lost, seconds=60)
    assert (decision.reason, decision.target) == (Reason.PEERS_LOST, "mid")
    assert [entry.variant for entry in state.upgrade_backoffs] == ["split"]
    gone, _ = seen(None, seconds=60)
    assert gone.reason is Reason.PEERS_LOST, "a set that was dissolved"
    busy = State(last_switch_at=NOW - SWITCHING.settle_seconds - 1)
    decision, _ = seen(lost, seconds=1, state=busy)
    assert decision.reason is Reason.PEERS_NOT_READY


def test_a_late_fallback_is_left_once_one_node_does_for_long() -> None:
    # 8 ms leave no time beside 7.1 ms; mid has 7.2 ms, with its margin.
    hasty = Objectives(latency_p95_milliseconds=8.0, min_accuracy_percent=85.0)
    short, _ = seen(serving(), seconds=SWITCHING.up_after_seconds - 5, objectives=hasty)
    assert short.action.value == "Hold"
    decision, _ = seen(serving(), seconds=SWITCHING.up_after_seconds + 5, objectives=hasty)
    assert decision.reason is Reason.FALLS_BACK_LATE
    assert decision.target is not None
    assert by_name(decision.target).accuracy_percent >= 85.0


def test_a_split_that_is_due_and_barred_says_what_is_missing() -> None:
    # Nothing is faster than tiny, and the split alone would reach the minimum.
    asked = Objectives(latency_p95_milliseconds=30.0)
    offered = workers(is_ready=False, reason="peer 1 is silent")
    decision, _ = repeated(observation("large", worker_set=offered), seconds=5, profiles=WITH_SPLIT, objectives=asked)
    assert (decision.reason, decision.target) == (Reason.PEERS_NOT_READY, "split")
    assert "peer 1 is silent" in decision.message
    decision, _ = repeated(observation("large"), seconds=5, profiles=WITH_SPLIT, objectives=asked)
    assert decision.reason is Reason.OBJECTIVES_MET, "nobody offers a set"


def test_a_pin_needs_a_set_and_an_order_no_figures() -> None:
    pinned = Objectives(latency_p95_milliseconds=30.0, pinned_variant="split")
    decision, _ = decided(observation("large"), profiles=WITH_SPLIT, objectives=pinned)
    assert (decision.action.value, decision.reason) == ("Hold", Reason.PEERS_NOT_READY)
    formed = workers(is_ready=False, round_trip_milliseconds=None, compute_factor=None)
    ordered = replace(pinned, pin_is_order=True)
    decision, state = decided(observation("large", worker_set=formed), profiles=WITH_SPLIT, objectives=ordered)
    assert (decision.reason, decision.target) == (Reason.PINNED, "split")
    assert state.upgraded_variant == "split"
    assert decision.fallback is not None
    assert decision.fallback.abandon_milliseconds >= 50


def test_nothing_served_or_a_dead_server_is_answered_by_one_node_without_a_ready_set() -> None:
    empty = observation(None, worker_set=workers(is_ready=False))
    decision, _ = decided(empty, profiles=WITH_SPLIT, objectives=TIGHT)
    assert (decision.reason, decision.target) == (Reason.INITIAL, "mid")
    dead = split_observation(serving(is_ready=False), server=ServerState.DEAD)
    decision, _ = decided(dead, profiles=WITH_SPLIT, objectives=TIGHT)
    assert (decision.reason, decision.target) == (Reason.SERVER_DEAD, "mid")
    alone, _ = decided(observation(None, worker_set=workers()), profiles=(SPLIT,), objectives=TIGHT)
    assert (alone.action.value, alone.reason) == ("Hold", Reason.INSUFFICIENT_SWITCH_MEMORY), "nothing to fall back to"


def test_the_slowest_worker_is_known_once_all_are() -> None:
    assert slowest_factor(SPLIT, {0: 5.0, 1: 12.0}) == pytest.approx(2.4)
    assert slowest_factor(SPLIT, {0: 5.0}) is None
    assert slowest_factor(PROFILES[0], {0: 5.0}) is None


def test_a_trace_holds_splits_and_sets_and_replays() -> None:
    offered = observation("large", worker_set=workers(fallback="tiny", reason="x"))
    decision, _ = decided(offered, objectives=TIGHT, profiles=WITH_SPLIT)
    lines = [
        header_line(profiles=WITH_SPLIT, switching=SWITCHING),
        cycle_line(now=NOW, observation=offered, objectives=TIGHT, decision=decision),
    ]
    trace = parse_trace(lines)
    assert trace.profiles == WITH_SPLIT
    (cycle,) = trace.events
    assert isinstance(cycle, TraceCycle)
    assert cycle.observation == offered
    assert cycle.recorded is not None
    assert replay(trace).differences() == ()
    before = [line for line in header_line(profiles=PROFILES, switching=SWITCHING).split(",") if "split" in line]
    assert before == [], "a portfolio without one is recorded as ever"
