"""From requests and decisions to the figures of the table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from demo.clients import Record
from edgefolio_pruner.html_report.timeline import ActiveStep, LatencyBin, LoadFigures

#: "Outside the objective" is judged per second of the load: its p95 over all clients against the objective then.
BIN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One switch as the agent reported it: seconds from the start of the load, and how long it took."""

    at: float
    variant: str
    reason: str
    milliseconds: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ``values`` (not empty)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


def summarize(
    *,
    records: Sequence[Record],
    switches: Sequence[Switch],
    accuracy: Mapping[int, float],
    objective_at: Sequence[tuple[float, float]],
    until: float,
    switch_window_seconds: float = 1.0,
) -> LoadFigures:
    """Figures of the requests before ``until`` seconds; ``objective_at`` lists (from second, p95 milliseconds)."""
    counted = [record for record in records if record.at < until]
    answered = [record for record in counted if record.error is None]
    wrong = [record for record in answered if record.version is None or record.version != record.computed_by]
    latencies = [record.milliseconds for record in answered]
    near = [s for s in switches if s.at < until]
    windows = [(s.at - s.milliseconds / 1000, s.at + switch_window_seconds) for s in near]
    inside = [r.milliseconds for r in answered if any(low <= r.at <= high for low, high in windows)]
    steady = [r.milliseconds for r in answered if not any(low <= r.at <= high for low, high in windows)]
    return LoadFigures(
        requests=len(counted),
        failed=len(counted) - len(answered),
        wrong_version=len(wrong),
        outside_objective_percent=outside_objective_percent(counted, objective_at, until),
        mean_accuracy_percent=mean(accuracy[record.version] for record in answered if record.version is not None),
        p50_milliseconds=percentile(latencies, 50),
        p95_milliseconds=percentile(latencies, 95),
        switches=len(near),
        switch_milliseconds=mean(s.milliseconds for s in near) if near else None,
        longest_gap_milliseconds=longest_gap_milliseconds(answered),
        p99_in_switch_windows_milliseconds=percentile(inside, 99) if inside else None,
        p99_steady_milliseconds=percentile(steady or latencies, 99),
    )


def outside_objective_percent(
    records: Sequence[Record], objective_at: Sequence[tuple[float, float]], until: float
) -> float:
    """Share of the seconds whose p95 was above the objective; a failed request is above any objective."""
    bins: dict[int, list[float]] = {}
    for record in records:
        milliseconds = record.milliseconds if record.error is None else float("inf")
        bins.setdefault(int(record.at / BIN_SECONDS), []).append(milliseconds)
    seconds = [number for number in sorted(bins) if (number + 0.5) * BIN_SECONDS < until]
    outside = [
        number for number in seconds if percentile(bins[number], 95) > _objective(objective_at, number * BIN_SECONDS)
    ]
    return 100 * len(outside) / len(seconds) if seconds else 0.0


def slow_requests_percent(
    records: Sequence[Record], objective_at: Sequence[tuple[float, float]], until: float
) -> float:
    """Share of the requests before ``until`` that failed or took longer than the objective at their time."""
    counted = [record for record in records if record.at < until]
    slow = [r for r in counted if r.error is not None or r.milliseconds > _objective(objective_at, r.at)]
    return 100 * len(slow) / len(counted) if counted else 0.0


def latency_bins(records: Sequence[Record], *, seconds: float = 0.5) -> tuple[LatencyBin, ...]:
    """The latencies of ``records`` in bins of ``seconds``, for the plot."""
    bins: dict[int, list[Record]] = {}
    for record in records:
        bins.setdefault(int(record.at / seconds), []).append(record)
    result = []
    for number, members in sorted(bins.items()):
        latencies = [record.milliseconds for record in members if record.error is None]
        result.append(
            LatencyBin(
                at=number * seconds,
                requests=len(members),
                failed=len(members) - len(latencies),
                p50_milliseconds=percentile(latencies, 50) if latencies else None,
                p95_milliseconds=percentile(latencies, 95) if latencies else None,
                maximum_milliseconds=max(latencies, default=None),
            )
        )
    return tuple(result)


def active_steps(records: Sequence[Record], names: Mapping[int, str]) -> tuple[ActiveStep, ...]:
    """Which variant answered from when on, by the version that the answers state."""
    steps: list[ActiveStep] = []
    for record in sorted(records, key=lambda record: record.at + record.milliseconds / 1000):
        variant = names.get(record.version) if record.version is not None else None
        if variant is not None and (not steps or steps[-1].variant != variant):
            steps.append(ActiveStep(at=record.at, variant=variant))
    return tuple(steps)


def longest_gap_milliseconds(answered: Sequence[Record]) -> float:
    """The longest time in which no client got any answer."""
    instants = sorted(record.at + record.milliseconds / 1000 for record in answered)
    return 1000 * max((later - earlier for earlier, later in pairwise(instants)), default=0.0)


def _objective(objective_at: Sequence[tuple[float, float]], second: float) -> float:
    return [milliseconds for start, milliseconds in objective_at if start <= second][-1]
