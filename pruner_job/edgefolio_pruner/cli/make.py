"""``edgefolio make``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from edgefolio.commands.terminal import Terminal
from edgefolio.shown_text import shortened, shown_rate
from edgefolio.specification.loading import ignored_on_one_machine, load_portfolio

if TYPE_CHECKING:
    from edgefolio.manifest import Manifest, Variant
    from edgefolio.records.split_member import SplitMember
    from edgefolio_pruner.pipeline import MakeResult

#: Points of recall that a class has lost when it is worth a line.
_LOST_POINTS = 10.0


def make(
    file: Path = typer.Option(..., "--file", "-f", help="A ModelPortfolio, the file that kubectl takes as well."),
    repository: str | None = typer.Option(
        None, help="Where to publish: a directory or s3://bucket/prefix. Default: spec.repository.uri."
    ),
    work_dir: Path | None = typer.Option(
        None, help="Where work is kept, so that a stopped run goes on. Default: ~/.cache/edgefolio/work/NAME-DIGEST."
    ),
    report: Path | None = typer.Option(None, help="Where to write the report. Default: report.html in the work dir."),
    sign: Path | None = typer.Option(
        None, metavar="KEY", help="Sign the revision with this secret key file (see `edgefolio keygen`)."
    ),
    memory: str | None = typer.Option(
        None, metavar="BYTES", help="Memory that may be taken, such as 4Gi. Default: what is free."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object to standard output, no table."),
) -> int:
    """Make a portfolio: train or take a model, prune it, prove, profile, select and publish.

    It can be stopped at any time; restarted with the same file it resumes and ends with the same variants.

    Example: edgefolio make -f examples/digits.yaml --repository ./portfolios

    Exit codes: 0 published; 2 bad input; 3 no candidate meets the accuracy floor, so that the dense model
    alone was published.
    """
    portfolio = load_portfolio(file)
    console = Terminal(stderr=True, highlight=False)
    ignored = ignored_on_one_machine(portfolio)
    if ignored:
        console.print(f"note: ignored on one machine, a cluster reads it: {', '.join(ignored)}", soft_wrap=True)
    from edgefolio.repository.storage import checked_argument
    from edgefolio_pruner.available_memory import bounded, memory_argument
    from edgefolio_pruner.cli.json_output import output_kept_for_json
    from edgefolio_pruner.cli.progress_display import shown_progress
    from edgefolio_pruner.html_report import write_report
    from edgefolio_pruner.pipeline import make_portfolio

    limit = None if memory is None else memory_argument(memory)
    if repository is not None:
        checked_argument(repository, field="--repository")
    # The network's own code may print.
    with output_kept_for_json(active=as_json) as print_document:
        with shown_progress(console) as progress, bounded(limit):
            result = make_portfolio(
                portfolio, repository_uri=repository, work_directory=work_dir, signing_key_file=sign, progress=progress
            )
        written = write_report(result.manifest, report if report is not None else result.work_directory / "report.html")
        if as_json:
            print_document(json.dumps(_document(result, report=written, ignored=ignored), indent=2))
    if not as_json:
        _print_result(result, report=written, file=file)
    return result.exit_code


def _document(result: MakeResult, *, report: Path, ignored: tuple[str, ...]) -> dict[str, Any]:
    manifest, published = result.manifest, result.published
    batch = manifest.request_batch_size
    variants = []
    for variant in manifest.variants:
        latency = variant.profiles[0].latency(batch)
        assert latency is not None
        variants.append(
            {
                "name": variant.name,
                "rank": variant.rank,
                "version": manifest.version_of(variant),
                "method": variant.method,
                "sha256": variant.sha256,
                "sizeBytes": variant.stored_bytes,
                "parameters": variant.parameters,
                "macs": variant.macs,
                "validationAccuracyPercent": variant.validation_accuracy.percent,
                "testAccuracyPercent": variant.test_accuracy.percent,
                **_class_figures(manifest, variant),
                **({} if variant.test_score is None else {"testScore": variant.test_score.value}),
                "p50Milliseconds": latency.p50_milliseconds,
                "p95Milliseconds": latency.p95_milliseconds,
                "memorySteadyBytes": variant.profiles[0].memory_steady_bytes,
                "memoryPeakBytes": variant.profiles[0].memory_peak_bytes,
                **({} if variant.split is None else {"split": _split_figures(variant.split)}),
            }
        )
    return {
        "model": manifest.model,
        "revision": manifest.revision,
        "manifestSha256": published.pointer.manifest_sha256,
        "repository": result.repository_uri,
        "isCurrent": published.is_current,
        "alreadyPublished": published.already_published,
        "accuracyFloorMet": manifest.accuracy_floor_met,
        "requestBatchSize": batch,
        **({} if manifest.score is None else {"score": manifest.score.model_dump(mode="json", by_alias=True)}),
        "variants": variants,
        "rejected": [rejected.model_dump(mode="json", by_alias=True) for rejected in manifest.rejected],
        "notes": list(manifest.notes),
        "ignoredFields": list(ignored),
        "workDirectory": str(result.work_directory),
        "report": str(report),
    }


def _split_figures(split: SplitMember) -> dict[str, Any]:
    return {
        "workers": split.workers,
        "layout": split.layout,
        "exchanges": split.synchronisations,
        "bytesIntoBusiest": split.bytes_into_busiest,
        "ownMilliseconds": split.own_milliseconds,
        "predictedMilliseconds": split.predicted_milliseconds,
    }


def _class_figures(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    figures = variant.test_classes
    if figures is None:
        return {}
    return {
        "balancedAccuracyPercent": figures.balanced_accuracy_percent,
        "weakestClass": manifest.labels[figures.lowest_class],
        "weakestClassRecallPercent": figures.lowest_recall_percent,
    }


def _lost_classes(manifest: Manifest) -> list[str]:
    """A line for each variant that lost a class against the most accurate one, which top-1 does not show."""
    best = manifest.variants[-1].test_classes
    lines = []
    for variant in manifest.variants[:-1]:
        figures = variant.test_classes
        if best is None or figures is None:
            continue
        losses = [
            (before - after, number, before, after)
            for number, (before, after) in enumerate(zip(best.recall_percents, figures.recall_percents, strict=True))
            if before is not None and after is not None
        ]
        lost, number, before, after = max(losses, default=(0.0, 0, 0.0, 0.0))
        if lost >= _LOST_POINTS:
            lines.append(
                f"note: {variant.name} recognizes {after:.1f} % of class {shortened(manifest.labels[number], 40)!r}, "
                f"{manifest.variants[-1].name} {before:.1f} %; selection.minClassRecallPercent bounds it"
            )
    return lines


def _split_line(variant: Variant) -> str:
    from edgefolio_pruner.html_report.view import byte_count

    split = variant.split
    assert split is not None
    shards = " + ".join(byte_count(shard.size_bytes) for shard in split.shards)
    return (
        f"{variant.name}: {variant.test_accuracy.percent:.2f} % on {split.workers} nodes, by {split.shown_layout}; "
        f"predicted {split.predicted_milliseconds:.2f} ms over {shown_rate(split.link.bits_per_second)} and "
        f"{split.link.round_trip_milliseconds:g} ms; shards of {shards}. `edgefolio serve --worker-set` serves it."
    )


def _print_result(result: MakeResult, *, report: Path, file: Path) -> None:
    from edgefolio_pruner.html_report.view import byte_count

    manifest = result.manifest
    console = Terminal(highlight=False)
    batch, word = manifest.request_batch_size, manifest.score_word
    own = None if manifest.score is None or manifest.score.unit == "Percent" else manifest.score
    table = Table(title=f"{manifest.model}, revision {manifest.revision} (test {word}; latency of a batch of {batch})")
    # Fits eighty columns; the report says more (method, parent, intervals).
    table.add_column("variant", no_wrap=True)
    headings = (word,) if own is None else (word, "% of dense")
    for heading in (*headings, "p50", "p95", "size", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for variant in reversed(manifest.single_node):
        latency = variant.profiles[0].latency(batch)
        assert latency is not None
        table.add_row(
            variant.name,
            *([] if variant.test_score is None else [f"{variant.test_score.value:.4g}"]),
            f"{variant.test_accuracy.percent:.2f} %",
            f"{latency.p50_milliseconds:.2f} ms",
            f"{latency.p95_milliseconds:.2f} ms",
            byte_count(variant.size_bytes),
            byte_count(variant.profiles[0].memory_steady_bytes),
        )
    console.print(table)
    for variant in reversed(manifest.splits):
        console.print(_split_line(variant), markup=False, soft_wrap=True)
    for line in _lost_classes(manifest):
        console.print(line, markup=False, soft_wrap=True)
    for note in manifest.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for rejected in manifest.rejected:
        console.print(f"left out: {rejected.name}: {rejected.reason}", markup=False, soft_wrap=True)
    if not manifest.accuracy_floor_met:
        floor = f"No candidate meets the {word} floor: the dense model alone was published (exit code 3)."
        console.print(floor, markup=False)
    if not result.published.is_current:
        console.print("Another publisher was faster: a later revision is current.")
    done = "Already published" if result.published.already_published else "Published"
    console.print(f"{done}: {result.repository_uri}, revision {manifest.revision}", markup=False, soft_wrap=True)
    console.print(f"Report:    {report}", markup=False, soft_wrap=True)
    console.print(
        f"Next:      edgefolio run -f {file} --repository {result.repository_uri}", markup=False, soft_wrap=True
    )
