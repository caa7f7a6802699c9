"""Any input of the decision, as hypothesis draws it: wild, or of figures that make sense."""

from __future__ import annotations

from typing import Any

from building import NOW
from hypothesis import strategies as st

from edgefolio.decision.types import (
    Computing,
    Contention,
    FittingVariant,
    LatencyTest,
    MemoryState,
    NodeState,
    Objectives,
    Observation,
    OwnFactor,
    ProbeResult,
    Quarantine,
    Reading,
    ServerState,
    Signal,
    State,
    TrafficBefore,
    TrafficWindow,
    UpgradeBackoff,
    VariantProfile,
)
from edgefolio.specification import Switching

NAMES = ("tiny", "small", "mid", "large", "gone")

wild = st.floats(allow_nan=True, allow_infinity=True)
names = st.sampled_from(NAMES)
positive = st.floats(0.01, 1e4)
whole = st.integers(0, 10**12)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def profiles_of(
    number: st.SearchStrategy[float], accuracy: st.SearchStrategy[float], memory: st.SearchStrategy[int] = whole
) -> st.SearchStrategy[Any]:
    def build(rows: list[tuple[float, float, float, int, int]]) -> tuple[VariantProfile, ...]:
        return tuple(
            VariantProfile(
                name=NAMES[index],
                rank=index + 1,
                accuracy_percent=row[0],
                mean_milliseconds=row[1],
                p95_milliseconds=row[2],
                load_milliseconds=100,
                memory_peak_bytes=row[3],
                memory_steady_bytes=row[4],
            )
            for index, row in enumerate(rows)
        )

    row = st.tuples(accuracy, number, number, memory, memory)
    return st.lists(row, max_size=4).map(build)


def traffics(number: st.SearchStrategy[float], count: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return st.builds(
        TrafficWindow,
        seconds=number,
        requests=count,
        failures=count,
        executions=count,
        mean_compute_milliseconds=number,
        mean_queue_milliseconds=number,
        mean_total_milliseconds=number,
        in_flight=number,
        age_seconds=number,
        p95_milliseconds=optional(number),
        readings=st.lists(
            st.builds(
                Reading,
                seconds=number,
                requests=count,
                mean_compute_milliseconds=number,
                mean_queue_milliseconds=number,
                mean_total_milliseconds=number,
                pending=optional(count),
            ),
            max_size=3,
        ).map(tuple),
    )


def observations(number: st.SearchStrategy[float], count: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    memory = st.builds(
        MemoryState,
        limit_bytes=optional(count),
        working_set_bytes=optional(count),
        node_available_bytes=optional(count),
        age_seconds=number,
        shared_memory_bytes=optional(count),
    )
    node = st.builds(
        NodeState,
        others_cpu_percent=optional(number),
        pressures=st.sampled_from([(), ("MemoryPressure",), ("DiskPressure", "PIDPressure")]),
        reserved_bytes=count,
    )
    probe = st.builds(ProbeResult, variant=names, compute_milliseconds=number, age_seconds=number)
    sign = optional(st.builds(Signal, percent=number, age_seconds=number))
    return st.builds(
        Observation,
        active_variant=optional(names),
        resident_variants=st.lists(names, max_size=3).map(tuple),
        server=st.sampled_from(ServerState),
        traffic=optional(traffics(number, count)),
        probe=optional(probe),
        standby_probe=optional(probe),
        memory=optional(memory),
        node=optional(node),
        contention=optional(st.builds(Contention, throttled=sign, pressure=sign, stolen=sign)),
    )


def objectives_of(number: st.SearchStrategy[float]) -> st.SearchStrategy[Objectives]:
    return st.builds(
        Objectives,
        latency_p95_milliseconds=optional(number),
        network_latency_milliseconds=number,
        min_accuracy_percent=optional(number),
        max_memory_bytes=optional(whole),
        pinned_variant=optional(names),
    )


def states(number: st.SearchStrategy[float]) -> st.SearchStrategy[State]:
    time = optional(number)
    return st.builds(
        State,
        compute_factor=number,
        transport_milliseconds=number,
        arrival_variability=number,
        factor_updated_at=time,
        arrival_rate=time,
        saturated_at=time,
        before_switch=optional(st.builds(TrafficBefore, arrival_rate=number, in_flight=number, utilization=number)),
        closed_loop=st.booleans(),
        observed_at=time,
        violation_since=time,
        violation_requests=number,
        failing_since=time,
        fitting=st.lists(st.builds(FittingVariant, variant=names, since=number), max_size=3).map(tuple),
        last_switch_at=time,
        recent_switches=st.lists(number, max_size=5).map(tuple),
        quarantined=st.lists(
            st.builds(
                Quarantine, variant=names, until=number, failures=st.integers(-3, 10**6), cause=st.text(max_size=5)
            ),
            max_size=3,
        ).map(tuple),
        upgraded_variant=optional(names),
        upgraded_at=time,
        upgrade_backoffs=st.lists(
            st.builds(UpgradeBackoff, variant=names, until=number, bounces=st.integers(-3, 10**6)), max_size=3
        ).map(tuple),
        own_factors=st.lists(st.builds(OwnFactor, variant=names, factor=number), max_size=3).map(tuple),
        latency_test=st.builds(
            LatencyTest,
            weighted_level=number,
            weight=number,
            readings=st.integers(-3, 10**6),
            requests=number,
            squares=number,
            scatter=number,
            calm_level=time,
            silent_seconds=number,
            pending=st.integers(-3, 10**6),
            budget=time,
            known_level=number,
            known_seconds=number,
            is_judged_anew=st.booleans(),
        ),
        computing=st.builds(
            Computing,
            variability=number,
            pairs=number,
            last=time,
            last_requests=number,
            weighted_change=number,
            weight=number,
            readings=st.integers(-3, 10**6),
        ),
    )


switchings = st.builds(
    Switching,
    policy=st.sampled_from(["Auto", "Auto", "Recommend", "Paused"]),
    down_after_seconds=st.integers(0, 60),
    up_after_seconds=st.integers(0, 300),
    min_dwell_seconds=st.integers(0, 120),
    max_switches_per_hour=st.integers(1, 20),
    up_margin_percent=st.integers(0, 100),
    down_margin_percent=st.integers(0, 100),
    settle_seconds=st.integers(0, 20),
    min_requests=st.integers(1, 100),
    memory_headroom_percent=st.integers(0, 100),
    window_seconds=st.integers(1, 60),
)
sane_profiles = profiles_of(positive, st.floats(0, 100)).filter(bool)
times = st.floats(NOW - 4000, NOW + 4000)
