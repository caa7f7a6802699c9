"""The judgement, the table and the report of the demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from demo.loads import LoadResult
from demo.portfolio import request_latency, slowest_and_fastest
from demo.story import Event
from demo.summary import active_steps, latency_bins
from edgefolio.manifest import Manifest
from edgefolio_pruner.html_report.timeline import (
    DecisionMark,
    ObjectiveStep,
    RunTimeline,
    TimelineCheck,
    TimelineLoad,
    TimelinePhase,
)


def checks(manifest: Manifest, results: Sequence[LoadResult]) -> tuple[TimelineCheck, ...]:
    """What must hold in every run. The exit code of the demonstration is their conjunction."""
    requests = [record for result in results for record in result.load.records]
    failed = [record for record in requests if record.error is not None]
    wrong = [record for record in requests if record.error is None and record.version != record.computed_by]
    exact = [variant for variant in manifest.variants if variant.exactness is not None]
    inexact = [
        variant.name
        for variant in exact
        if variant.exactness is not None
        and (
            variant.exactness.float64_relative_difference > 1e-9
            or variant.exactness.float32_absolute_difference > variant.exactness.float32_bound
        )
    ]
    troubles = [failure for result in results for failure in result.failures]
    return (
        TimelineCheck(
            name="spatial pruning is exact",
            passed=bool(exact) and not inexact,
            detail=", ".join(inexact) or f"{len(exact)} pruned variants equal their sparse parents",
        ),
        TimelineCheck(
            name="no failed request",
            passed=not failed,
            detail=str(failed[0].error) if failed else f"{len(requests)} requests answered",
        ),
        TimelineCheck(
            name="every answer came from the version that it states",
            passed=not wrong,
            detail=f"{len(wrong)} of {len(requests)} did not" if wrong else f"{len(requests)} answers compared",
        ),
        TimelineCheck(
            name="the corrupt revision was refused, the killed agent recovered",
            passed=not troubles,
            detail="; ".join(troubles) or "the endpoint served on through both",
        ),
    )


def timeline(manifest: Manifest, results: Sequence[LoadResult]) -> RunTimeline:
    """The run in the form that the report draws."""
    return RunTimeline(
        title="Under load",
        description=(
            "The same clients (two at a fixed rate, two closed-loop; gRPC and HTTP) and the same disturbances for each "
            "server. Latency as the clients saw it; a fixed-rate request counts from the instant it was due."
        ),
        loads=tuple(_load(manifest, result) for result in results),
        checks=checks(manifest, results),
    )


def _load(manifest: Manifest, result: LoadResult) -> TimelineLoad:
    names = {manifest.version_of(variant): variant.name for variant in manifest.variants}
    durations = {round(switch.at, 1): switch.milliseconds for switch in result.switches}
    marks = []
    for at, line in result.decisions:
        action: Literal["Hold", "Switch"] = "Switch" if line.get("action") == "Switch" else "Hold"
        target = line.get("target")
        marks.append(
            DecisionMark(
                at=max(0.0, at),
                action=action,
                reason=str(line.get("reason")),
                variant=None if target is None else str(target),
                message=str(line.get("message")),
                switch_milliseconds=durations.get(round(at, 1)),
            )
        )
    return TimelineLoad(
        name=result.name,
        seconds=result.load.phases[-1].end,
        phases=tuple(
            TimelinePhase(
                name=phase.event.value, start=phase.start, end=phase.end, disturbs=phase.event is not Event.QUIET
            )
            for phase in result.load.phases
        ),
        latencies=latency_bins(result.load.records),
        objective=tuple(ObjectiveStep(at=at, p95_milliseconds=asked) for at, asked in result.objective_at),
        active=active_steps(result.load.records, names),
        decisions=tuple(marks),
        figures=result.figures,
    )


def show(console: Console, manifest: Manifest, results: Sequence[LoadResult], *, report: Path, seconds: float) -> int:
    """Print the table, what had to hold, and the report's path; return the exit code."""
    slowest, fastest = slowest_and_fastest(manifest)
    ratio = request_latency(slowest, manifest) / request_latency(fastest, manifest)
    console.print()
    console.print(
        f"{len(manifest.variants)} variants; the fastest is {ratio:.1f}x as fast as the slowest "
        f"(median of a batch of {manifest.request_batch_size})"
    )
    table = Table(title="The same load on three servers", title_justify="left")
    table.add_column("figure")
    for result in results:
        table.add_column(result.name, justify="right")
    for label, name, pattern in _ROWS:
        values = [getattr(result.figures, name) for result in results]
        table.add_row(label, *("-" if value is None else format(value, pattern) for value in values))
    console.print(table)
    verdicts = checks(manifest, results)
    for verdict in verdicts:
        mark = "[green]holds[/green]" if verdict.passed else "[red]BROKEN[/red]"
        console.print(f"{mark}  {verdict.name}: {verdict.detail}")
    console.print(f"\nreport: {report}   ({seconds / 60:.1f} minutes)")
    return 0 if all(verdict.passed for verdict in verdicts) else 1


_ROWS = (
    ("requests", "requests", "d"),
    ("failed", "failed", "d"),
    ("answered by another version than stated", "wrong_version", "d"),
    ("time outside the objective, %", "outside_objective_percent", ".1f"),
    ("mean accuracy served, %", "mean_accuracy_percent", ".2f"),
    ("p50, ms", "p50_milliseconds", ".1f"),
    ("p95, ms", "p95_milliseconds", ".1f"),
    ("switches", "switches", "d"),
    ("mean switch, ms", "switch_milliseconds", ".0f"),
    ("longest gap without any answer, ms", "longest_gap_milliseconds", ".0f"),
    ("p99 in switch windows, ms", "p99_in_switch_windows_milliseconds", ".1f"),
    ("p99 otherwise, ms", "p99_steady_milliseconds", ".1f"),
)
