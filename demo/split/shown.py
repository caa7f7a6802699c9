"""What the demonstration of a split says: the plan before it is served, the table and what had to hold after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from demo.split.figures import Check, Figures
from demo.split.portfolio import Objective, Served
from edgefolio.manifest import Variant
from edgefolio.shown_text import shown_rate

__all__ = ["show_figures", "show_plan", "write_figures"]


def show_plan(console: Console, served: Served, objective: Objective) -> None:
    """The variants with their predicted or profiled times, and how the split divides the network."""
    split = served.split
    table = Table(title=f"Revision {served.manifest.revision} of {served.manifest.model}", title_justify="left")
    for heading in ("variant", "on", "accuracy, %", "one sample, ms", ""):
        table.add_column(heading, justify="left" if heading in ("variant", "on", "") else "right")
    for variant in reversed(served.manifest.variants):
        note = "the split" if variant == served.variant else "the fallback" if variant == served.fallback else ""
        where = "one node" if variant.split is None else f"{variant.split.workers} nodes"
        table.add_row(
            variant.name, where, f"{variant.test_accuracy.percent:.2f}", f"{_milliseconds(variant):.2f}", note
        )
    console.print(table)
    shares = " and ".join(f"{share} %" for share in split.shares_percent)
    console.print(
        f"Plan: by {split.shown_layout}, shares {shares}; the nodes wait {split.synchronisations} times for each "
        f"other, {split.bytes_into_busiest} bytes into the busiest as {split.wire}. The time of the split is predicted "
        f"for {shown_rate(split.link.bits_per_second)} and {split.link.round_trip_milliseconds:g} ms."
    )
    console.print(
        f"Objective: {objective.milliseconds:g} ms (p95). After {objective.abandon_milliseconds:.1f} ms without the "
        f"peer the fallback answers."
    )


def _milliseconds(variant: Variant) -> float:
    if variant.split is not None:
        return variant.split.predicted_milliseconds
    latency = variant.profiles[0].latency(1)
    return float("nan") if latency is None else latency.p50_milliseconds


def show_figures(console: Console, found: Sequence[Figures], verdicts: Sequence[Check], *, where: str) -> None:
    """The table, and what had to hold."""
    table = Table(title=f"One client of the first node; {where}", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("what happens", no_wrap=True)
    headings = ("s", "requests", "failed", "nobody's", "split", "fallback", "late", "p50, ms", "p95", "longest")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        times = (each.p50_milliseconds, each.p95_milliseconds, each.longest_milliseconds)
        counts = (each.requests, each.failed, each.nobodys, each.by_split, each.by_fallback, each.late)
        table.add_row(
            each.act.name,
            f"{each.act.end - each.act.start:.0f}",
            *map(str, counts),
            *("-" if time is None else f"{time:.1f}" for time in times),
        )
    console.print(table)
    for verdict in verdicts:
        mark = "[green]holds[/green]" if verdict.passed else "[red]BROKEN[/red]"
        console.print(f"{mark}  {verdict.name}: {verdict.detail}")


def write_figures(
    path: Path, found: Sequence[Figures], verdicts: Sequence[Check], *, objective: Objective, where: str
) -> None:
    """The same as JSON."""
    document = {
        "where": where,
        "objective": asdict(objective),
        "acts": [asdict(each) for each in found],
        "checks": [asdict(each) for each in verdicts],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
