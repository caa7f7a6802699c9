"""``edgefolio check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from edgefolio.commands.terminal import Terminal
from edgefolio.shown_text import printable, shortened
from edgefolio.specification.loading import load_portfolio

if TYPE_CHECKING:
    from edgefolio_pruner.stages.checks.understanding import Understanding

_LONGEST = 200
_GROUPS_SHOWN = 5


def check(
    file: Path = typer.Option(..., "--file", "-f", help="A ModelPortfolio, the file that `edgefolio make` takes."),
    report: Path | None = typer.Option(
        None, help="Where to write an HTML page with a picture of each class as the network sees it. Default: none."
    ),
    memory: str | None = typer.Option(
        None, metavar="BYTES", help="Memory that may be taken, such as 4Gi. Default: what is free."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object to standard output, no table."),
) -> int:
    """Say what a portfolio is understood as, before anything is trained: classes, samples, network, memory, time.

    It reads the data, builds the network, tries given weights, and rehearses the run once. Nothing is published.

    Example: edgefolio check -f examples/digits.yaml --report check.html

    Exit codes: 0 it can be made; 2 it cannot, and the message names the field and the remedy.
    """
    portfolio = load_portfolio(file)
    from edgefolio_pruner.available_memory import bounded, memory_argument
    from edgefolio_pruner.cli.json_output import output_kept_for_json
    from edgefolio_pruner.cli.progress_display import shown_progress
    from edgefolio_pruner.html_report.check_page import write_check_page
    from edgefolio_pruner.pipeline import available_threads
    from edgefolio_pruner.stages.checks.understanding import understand

    limit = None if memory is None else memory_argument(memory)
    # The network's own code may print.
    with output_kept_for_json(active=as_json) as print_document:
        with shown_progress(Terminal(stderr=True, highlight=False)) as progress, bounded(limit):
            found = understand(portfolio, threads=available_threads(), progress=progress)
        rows = _rows(found)
        if report is not None:
            write_check_page(found, rows, report)
        if as_json:
            print_document(json.dumps(_document(found, report=report), indent=2))
    if not as_json:
        _print(found, rows, file=file, report=report)
    return 0


def _rows(found: Understanding) -> list[tuple[str, str]]:
    """The table of what was understood, as texts."""
    from edgefolio_pruner.available_memory import shown_bytes

    data, record = found.data, found.data.preprocessing
    rows = [
        (
            "network",
            f"{found.source.description}: {found.parameters:,} parameters, {found.macs:,} MACs a sample",
        ),
        ("weights", _weights(found)),
        ("samples", _samples(data)),
        ("task", _task(found)),
        *_classes(data),
        ("values", _values(record)),
    ]
    if record.pictures is not None:
        rows.append(("pictures", _pictures(record.pictures)))
    prunable = [group for group in found.groups if group.prunable]
    rows.append(("prunable", f"{len(prunable)} of {len(found.groups)} groups of channels: {_groups(prunable)}"))
    if found.least is not None:
        rows.append(("one-shot", f"down to {found.least.percent:.1f} % of the multiply-accumulates"))
    peak = max(found.forecast.memory_bytes.items(), key=lambda entry: entry[1])
    rows.append(("memory", f"about {shown_bytes(peak[1])} ({peak[0]}), {shown_bytes(found.free_bytes)} are free"))
    rows.append(("time", f"about {_duration(found.forecast.seconds)}"))
    return [(name, shortened(printable(text), _LONGEST if name == "classes" else 500)) for name, text in rows]


def _weights(found: Understanding) -> str:
    score = found.score
    if score is None:
        given = "none: it is trained from scratch" if found.source.initial_state is None else "given"
        return found.other_score or given
    return (
        f"given; right on {score.percent:.1f} % of {score.samples} validation samples "
        f"({score.low_percent:.1f} to {score.high_percent:.1f} %)"
    )


def _classes(data: Any) -> list[tuple[str, str]]:
    if not data.class_names:
        return []
    return [("classes", f"{len(data.class_names)}, in this order: {', '.join(data.class_names)}")]


def _task(found: Understanding) -> str:
    return f"{found.data.task}, compared by {found.source.scoring.title}"


def _samples(data: Any) -> str:
    return (
        f"{data.train.samples:,} for training, {data.validation.samples:,} for validation, {data.test.samples:,} for "
        f"test{' (held out)' if data.test_is_held_out else ''}, each {data.shown_shape}"
    )


def _pictures(reading: Any) -> str:
    text = f"{reading.channels}, {reading.values}, turned as EXIF says, transparent parts black"
    if reading.centre_crop is None:
        return f"{text}, at their own size"
    return (
        f"{text}, shorter side to {reading.resized_shorter_side} ({reading.interpolation}), "
        f"middle {reading.centre_crop} x {reading.centre_crop}"
    )


def _groups(prunable: list[Any]) -> str:
    shown = ", ".join(f"{group.name} ({group.channels})" for group in prunable[:_GROUPS_SHOWN])
    more = len(prunable) - _GROUPS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _values(record: Any) -> str:
    if not record.mean:
        return "as they are in the file"
    return f"raw x {record.scale:.6g}, then mean {_numbers(record.mean)}, deviation {_numbers(record.std)}"


def _numbers(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:4])
    return f"{shown}, ..." if len(values) > 4 else shown


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _document(found: Understanding, *, report: Path | None) -> dict[str, Any]:
    data, score = found.data, found.score
    samples = data.class_samples
    return {
        "network": found.source.description,
        "parameters": found.parameters,
        "macs": found.macs,
        "weights": None
        if score is None
        else {
            "validationAccuracyPercent": score.percent,
            "lowPercent": score.low_percent,
            "highPercent": score.high_percent,
            "samples": score.samples,
        },
        **({"score": found.other_score} if found.other_score else {}),
        "data": data.digests.model_dump(mode="json", by_alias=True),
        "sampleShape": list(data.sample_shape),
        **(
            {"inputs": {name: list(shape) for name, shape in data.input_shapes.items()}}
            if len(data.input_names) > 1
            else {}
        ),
        "classes": list(data.class_names),
        "classSamples": None if samples is None else samples.model_dump(mode="json", by_alias=True),
        "preprocessing": data.preprocessing.model_dump(mode="json", by_alias=True),
        "groups": [
            {"name": group.name, "channels": group.channels, "prunable": group.prunable, "reason": group.reason}
            for group in found.groups
        ],
        "oneShot": None
        if found.least is None
        else {"leastMacsPercent": found.least.percent, "leftOut": dict(found.least.left_out)},
        "forecast": {"memoryBytes": dict(found.forecast.memory_bytes), "seconds": round(found.forecast.seconds, 1)},
        "freeMemoryBytes": found.free_bytes,
        "notes": list(found.notes),
        "report": None if report is None else str(report),
    }


def _print(found: Understanding, rows: list[tuple[str, str]], *, file: Path, report: Path | None) -> None:
    console = Terminal(highlight=False)
    table = Table(title="Understood", show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, text in rows:
        # As it is: square brackets would be taken for rich's markup.
        table.add_row(name, Text(text))
    console.print(table)
    for note in found.notes:
        console.print(f"note: {printable(note)}", markup=False, soft_wrap=True)
    if report is not None:
        console.print(f"Report: {report}", markup=False, soft_wrap=True)
    console.print(f"Next:   edgefolio make -f {file}", markup=False, soft_wrap=True)
