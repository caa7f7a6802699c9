"""The Markdown page beside ``scale.json``: medians of all rounds, with the lowest and the highest."""

from __future__ import annotations

import functools
import operator
import statistics
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
#: Where a figure stands in what one run found.
_Figure = tuple[str, ...]

_MEMORY: _Figure = ("idle", "residentMebibytes")
_PROCESSOR: _Figure = ("idle", "processorMillisecondsPerSecond")
_OWN_WRITES: _Figure = ("idle", "operatorWritesPerSecond")
_ALL_WRITES: _Figure = ("idle", "endpointWritesPerSecond")
_IN_SPECS: _Figure = ("objective", "allSpecsSeconds")
_ACKNOWLEDGED: _Figure = ("objective", "allReportsSeconds")
_PRICE: _Figure = ("objective", "processorSeconds")
_ORDERED: _Figure = ("contention", "beyondDownAfterSeconds", "p50")
_LAST_ORDERED: _Figure = ("contention", "beyondDownAfterSeconds", "p95")

_LINES: tuple[tuple[str, str, _Figure], ...] = (
    ("operator's memory, idle, MiB", ".0f", _MEMORY),
    ("highest while objectives change, MiB", ".0f", ("objective", "peakMebibytes")),
    ("processor, idle, ms per s", ".1f", _PROCESSOR),
    ("cycles per s, idle", ".2f", ("idle", "cyclesPerSecond")),
    ("ms per cycle, idle", ".0f", ("idle", "cycleMilliseconds")),
    ("operator's writes per s, idle", ".2f", _OWN_WRITES),
    ("all writes to ModelEndpoints per s, idle", ".2f", _ALL_WRITES),
    ("a changed objective is in all specs, s", ".2f", _IN_SPECS),
    ("all agents have acknowledged it, s", ".1f", _ACKNOWLEDGED),
    ("processor until it is in all specs, s", ".2f", _PRICE),
    ("contention: report to order, beyond downAfterSeconds, median, s", ".2f", _ORDERED),
    ("the same, 95 % of endpoints, s", ".2f", _LAST_ORDERED),
)

_GROWING: tuple[tuple[str, _Figure], ...] = (
    ("operator's memory, idle", _MEMORY),
    ("processor, idle", _PROCESSOR),
    ("operator's writes, idle", _OWN_WRITES),
    ("all writes to ModelEndpoints, idle", _ALL_WRITES),
    ("objective in all specs", _IN_SPECS),
    ("objective acknowledged by all", _ACKNOWLEDGED),
    ("processor for an objective", _PRICE),
    ("order after contention", _LAST_ORDERED),
)


def markdown(results: Json) -> str:
    """The whole page."""
    machine, rows = results["machine"], results["rows"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    counts = ", ".join(f"{len(row['runs'])} of {row['endpoints']}" for row in rows)
    commits = sorted({run["commit"] for row in rows for run in row["runs"]})
    lines = [
        "# What the operator costs",
        "",
        f"Written by `{results['command']}` from `scale.json`. {machine['processor']}, {machine['logicalCpus']} "
        "logical processors, which etcd, API server, controllers, scheduler, kwok and the process that acts as all "
        f"agents share with the operator; Kubernetes {machine['kubernetes']}, Python {machine['python']}, {packages}.",
        "Nodes exist in the API only; the DaemonSet, its pods, the operator and the rules by which agents report are "
        "real. One portfolio of five variants, steady traffic everywhere; the default times of switching.",
        f"Runs, one size after the other in turns: {counts}. Each figure is the median of the runs (lowest to "
        f"highest). Contention slows a tenth of the endpoints down. Commit: {', '.join(commits)}.",
        "",
        f"| figure | {' | '.join(str(row['endpoints']) + ' endpoints' for row in rows)} |",
        f"|---|{'---|' * len(rows)}",
        *(
            f"| {title} | {' | '.join(_spread(_values(row, figure), form) for row in rows)} |"
            for title, form, figure in _LINES
        ),
        "| load average before; idle; objective; contention | "
        + " | ".join("<br>".join(_loads(run) for run in row["runs"]) for row in rows)
        + " |",
        "",
        *_growth(rows),
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], form: str) -> str:
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else middle


def _loads(run: Json) -> str:
    phases = (run[phase]["loadAverage"] for phase in ("idle", "objective", "contention"))
    return "; ".join(f"{load:.2f}" for load in (run["loadAverageBefore"], *phases))


def _values(row: Json, figure: _Figure) -> list[float]:
    """What each run found."""
    return [float(functools.reduce(operator.getitem, figure, run)) for run in row["runs"]]


def _growth(rows: list[Json]) -> list[str]:
    """How each figure grows against the endpoints: 1 is linear, less is better."""
    steps = [(few, many) for index, few in enumerate(rows) for many in rows[index + 1 :]]
    if not steps:
        return []
    heads = [f"{few['endpoints']} to {many['endpoints']}" for few, many in steps]
    lines = [
        "## Against the number of endpoints",
        "",
        "How much a figure *per endpoint* grows from one size to another: 1.00 is linear, less is better than linear. "
        "The rule is that nothing is worse than linear. Of the medians (from the best to the worst round). Writes at "
        "rest are one report for each endpoint and half a minute, counted for a minute: of few endpoints few. The "
        "processor for an objective includes what else is heard until the last spec is written, from 500 endpoints "
        "some 100 reports of their own.",
        "",
        f"| figure per endpoint | {' | '.join(heads)} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for name, figure in _GROWING:
        lines.append(f"| {name} | {' | '.join(_ratio(few, many, figure) for few, many in steps)} |")
    return lines


def _ratio(few: Json, many: Json, figure: _Figure) -> str:
    def between(small: float, large: float) -> float:
        return (large / many["endpoints"]) / (small / few["endpoints"])

    before, after = _values(few, figure), _values(many, figure)
    if min(before) <= 0:
        return ""
    rounds = [between(small, large) for small, large in zip(before, after, strict=False)]
    middle = between(statistics.median(before), statistics.median(after))
    return f"{middle:.2f} ({min(rounds):.2f} to {max(rounds):.2f})" if len(rounds) > 1 else f"{middle:.2f}"
