"""``edgefolio split``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.table import Table

from edgefolio.commands.splits import parse_link
from edgefolio.commands.terminal import Terminal
from edgefolio.errors import EXIT_OBJECTIVE_NOT_MET, EXIT_OK, UserError
from edgefolio.specification.loading import load_portfolio
from edgefolio.specification.splitting import equal_shares

if TYPE_CHECKING:
    from edgefolio_pruner.split.result import MeasuredSplit, Question, SplitReport

_MOST_WORKERS = 8
_LAYOUTS: dict[str, Literal["Auto", "Rows", "Channels"]] = {"Auto": "Auto", "Rows": "Rows", "Channels": "Channels"}
_PRECISIONS: dict[str, Literal["Float32", "Int8"]] = {"Float32": "Float32", "Int8": "Int8"}
_WIRES: dict[str, Literal["Float32", "UInt8"]] = {"Float32": "Float32", "UInt8": "UInt8"}


def split(
    file: Path = typer.Option(..., "--file", "-f", help="A ModelPortfolio, the file that `edgefolio make` takes."),
    workers: int | None = typer.Option(
        None, min=2, max=_MOST_WORKERS, help="Nodes that compute one answer together.", show_default="2"
    ),
    shares: str | None = typer.Option(
        None, help="Part of the work of each worker in percent, such as 60,40. Default: equal parts."
    ),
    link: str | None = typer.Option(
        None,
        help="The network between them: bits a second (K, M or G), and the round trip of a message.",
        show_default="1G,0.3ms",
    ),
    layout: str | None = typer.Option(
        None,
        help="How layers are divided: Rows, Channels, or Auto for both and rows until a layer.",
        show_default="Auto",
    ),
    wire: str | None = typer.Option(
        None,
        help="How channels travel, and rows in front of them: UInt8 or Float32. Rows alone: Float32.",
        show_default="UInt8",
    ),
    precision: str | None = typer.Option(
        None,
        help="What shards compute in: Float32, or Int8 by the samples and the bound of spec.methods.quantization.",
        show_default="Float32",
    ),
    max_accuracy_loss: float | None = typer.Option(
        None,
        min=0.0,
        max=100.0,
        help="Points of validation accuracy that a plan may lose against the dense model.",
        show_default="1.0",
    ),
    fine_tune_epochs: int | None = typer.Option(
        None,
        min=0,
        max=100,
        help="Passes over the training samples, without labels, in which the weights of a plan by channels are tuned.",
        show_default="0",
    ),
    work_dir: Path | None = typer.Option(
        None, help="Where work is kept, as for `edgefolio make`, whose models it takes from there."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object to standard output, no table."),
) -> int:
    """Plan how several nodes could compute one model together, and tell whether that pays. Publishes nothing.

    Searches for plans over the declared link: by rows, by channels, and by rows until a layer. Makes at most six,
    measures their shards here one after another, and adds the link. Every plan is compared with the fastest model of
    one node that is at least as accurate; plans that another beats in accuracy, time and weights are not shown.

    Without any of the options that describe a split, the entries of spec.methods.split are planned, where there are
    some: what `edgefolio make` would make of them.

    Example: edgefolio split -f examples/digits.yaml --workers 2 --link 1G,0.3ms

    Exit codes: 0 a plan pays; 2 bad input; 3 none pays.
    """
    described = (workers, shares, link, layout, wire, precision, max_accuracy_loss, fine_tune_epochs)
    own = replace(
        _question(workers or 2, shares, link or "1G,0.3ms", layout or "Auto", wire or "UInt8", max_accuracy_loss),
        fine_tune_epochs=fine_tune_epochs or 0,
        precision=_precision(precision or "Float32"),
    )
    portfolio = load_portfolio(file)
    entries = portfolio.spec.methods.split if all(option is None for option in described) else ()
    from edgefolio_pruner.cli.json_output import output_kept_for_json
    from edgefolio_pruner.cli.progress_display import shown_progress
    from edgefolio_pruner.splitting import plan_entry, plan_splits

    # The network's own code may print.
    with output_kept_for_json(active=as_json) as print_document:
        with shown_progress(Terminal(stderr=True, highlight=False)) as progress:
            if entries:
                reports = [
                    plan_entry(portfolio, position, work_directory=work_dir, progress=progress)
                    for position in range(len(entries))
                ]
            else:
                reports = [plan_splits(portfolio, own, work_directory=work_dir, progress=progress)]
        if as_json:
            documents = [document_of(report) for report in reports]
            named = [{"name": entry.name, **found} for entry, found in zip(entries, documents, strict=False)]
            print_document(json.dumps({"splits": named} if entries else documents[0], indent=2))
    if not as_json:
        for number, report in enumerate(reports):
            if entries:
                Terminal(highlight=False).print(f"spec.methods.split, {entries[number].name}:", markup=False)
            _print(report)
    return EXIT_OK if any(report.best is not None for report in reports) else EXIT_OBJECTIVE_NOT_MET


def _question(
    workers: int, shares: str | None, link: str, layout: str, wire: str, max_accuracy_loss: float | None
) -> Question:
    from edgefolio_pruner.split.result import Link, Question

    over = parse_link(link)
    if wire not in _WIRES:
        raise UserError("this is no wire.", field="--wire", value=wire, remedy="Give UInt8 or Float32.")
    if layout not in _LAYOUTS:
        raise UserError("this is no layout.", field="--layout", value=layout, remedy="Give Rows, Channels or Auto.")
    return Question(
        shares=parse_shares(shares, workers),
        wire=_WIRES[wire],
        layout=_LAYOUTS[layout],
        link=Link(bits_per_second=over.bits_per_second, round_trip_milliseconds=over.round_trip_milliseconds),
        most_loss_points=1.0 if max_accuracy_loss is None else max_accuracy_loss,
    )


def _precision(text: str) -> Literal["Float32", "Int8"]:
    if text not in _PRECISIONS:
        raise UserError("this is no precision.", field="--precision", value=text, remedy="Give Float32 or Int8.")
    return _PRECISIONS[text]


def parse_shares(text: str | None, workers: int) -> tuple[int, ...]:
    """The share of each worker in percent; equal parts without a text."""
    if text is None:
        return equal_shares(workers)
    try:
        shares = tuple(int(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != workers or sum(shares) != 100 or min(shares, default=0) < 1:
        raise UserError(
            f"these are not {workers} whole numbers above 0 that sum to 100.",
            field="--shares",
            value=text,
            remedy=f"Give one number for each of the {workers} workers, such as "
            + ",".join(str(share) for share in parse_shares(None, workers))
            + ".",
        )
    return shares


def document_of(report: SplitReport) -> dict[str, Any]:
    """What ``--json`` prints."""
    best = report.best
    return {
        "workers": len(report.shares),
        "sharesPercent": list(report.shares),
        "wire": report.wire,
        "precision": report.precision,
        "link": {
            "bitsPerSecond": report.link.bits_per_second,
            "roundTripMilliseconds": report.link.round_trip_milliseconds,
        },
        "validationSamples": report.samples,
        "dense": {
            "parameters": report.dense_parameters,
            "macs": report.dense_macs,
            "bytesOfFloat32Exchange": report.dense_bytes,
        },
        "singleNode": [
            {
                "name": single.name,
                "validationAccuracyPercent": single.accuracy_percent,
                "p50Milliseconds": single.milliseconds,
            }
            for single in report.singles
        ],
        "plans": [_plan_document(entry) for entry in report.splits],
        "best": None if best is None else best.title,
        "verdict": report.verdict,
        "notes": list(report.notes),
    }


def _plan_document(entry: MeasuredSplit) -> dict[str, Any]:
    plan = entry.plan
    least = entry.least_bits_per_second
    return {
        "title": entry.title,
        "layout": plan.layout,
        "rowsUntil": plan.rows_until,
        "keep": entry.planned.keep,
        "wire": plan.wire,
        "exchanges": [
            {
                "place": exchange.place,
                "kind": exchange.kind,
                "depth": exchange.depth,
                "bytesInto": [plan.element_bytes * exchange.elements_into(rank) for rank in range(plan.workers)],
            }
            for exchange in plan.exchanges
        ],
        "synchronisations": plan.synchronisations,
        "bytesIntoBusiest": entry.bytes_in,
        "bytesIntoAll": entry.planned.bytes_in,
        "inputBytes": entry.input_bytes,
        "parametersOfLargest": entry.parameters,
        "macsOfBusiest": entry.macs,
        "shardBytes": [shard.size_bytes for shard in plan.shards],
        "validationAccuracyPercent": entry.accuracy_percent,
        "accurateEnough": entry.accurate_enough,
        "computeMilliseconds": entry.compute_milliseconds,
        "ownMilliseconds": entry.own_milliseconds,
        "predictedMilliseconds": entry.predicted_milliseconds,
        "fastestSingleNode": entry.rival.name,
        "pays": entry.pays,
        "paysFromBitsPerSecond": None if least is None or math.isinf(least) else least,
        "certificate": None if plan.certificate is None else plan.certificate.model_dump(mode="json", by_alias=True),
        "seconds": round(entry.planned.seconds, 1),
    }


def _print(report: SplitReport) -> None:
    from edgefolio.shown_text import shown_rate

    console = Terminal(highlight=False)
    rate = shown_rate(report.link.bits_per_second)
    console.print(
        f"{len(report.shares)} workers ({', '.join(f'{share} %' for share in report.shares)}), wire {report.wire}, "
        f"{'' if report.precision == 'Float32' else 'int8 shards, '}"
        f"{rate}, round trip {report.link.round_trip_milliseconds:g} ms; accuracy on {report.samples} validation "
        "samples, milliseconds of one sample on one thread",
        soft_wrap=True,
    )
    singles = Table(title="Models of one node")
    singles.add_column("model", no_wrap=True)
    for heading in ("accuracy", "ms"):
        singles.add_column(heading, justify="right", no_wrap=True)
    for single in report.singles:
        singles.add_row(single.name, f"{single.accuracy_percent:.2f} %", f"{single.milliseconds:.2f}")
    console.print(singles)
    # Fits eighty columns; --json says more.
    table = Table(title="Plans", box=None, padding=(0, 1, 0, 0))
    table.add_column("traffic", no_wrap=True)
    for heading in ("waits", "bytes in", "weights", "MACs", "accuracy", "compute", "predicted", "own", "one node"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in report.splits:
        table.add_row(
            entry.planned.short_title,
            str(entry.plan.synchronisations),
            f"{entry.bytes_in:,}",
            f"{100 * entry.parameters / max(1, report.dense_parameters):.0f} %",
            f"{100 * entry.macs / max(1, report.dense_macs):.0f} %",
            f"{entry.accuracy_percent:.2f} %",
            f"{entry.compute_milliseconds:.2f}",
            f"{entry.predicted_milliseconds:.2f}",
            f"{entry.own_milliseconds:.2f}",
            f"{entry.rival.milliseconds:.2f}",
        )
    console.print(table)
    for entry in report.splits:
        if entry.plan.rows_until is not None:
            console.print(f"{entry.planned.short_title}: {entry.title}", markup=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(report.verdict, markup=False, soft_wrap=True)
