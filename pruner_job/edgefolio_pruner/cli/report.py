"""``edgefolio report``."""

from __future__ import annotations

from pathlib import Path

import typer

from edgefolio.commands.terminal import say
from edgefolio.errors import UserError


def report(
    repository: str = typer.Argument(..., help="The repository: a directory or s3://bucket/prefix."),
    model: str | None = typer.Option(None, help="The model. Default: the only one in the repository."),
    revision: int | None = typer.Option(None, min=1, help="The revision. Default: the current one."),
    timeline: Path | None = typer.Option(None, help="The record of a run under load (JSON) to draw as well."),
    output: Path = typer.Option(Path("report.html"), "--output", "-o", help="The HTML file to write."),
) -> int:
    """Write the report of a published portfolio: one HTML file that needs nothing from outside.

    Example: edgefolio report ./portfolios --model digits --output report.html
    """
    from edgefolio.repository import Repository
    from edgefolio.repository.storage import checked_argument
    from edgefolio_pruner.html_report import RunTimeline, write_report

    run = None if timeline is None else RunTimeline.read(timeline)
    published = Repository.open(checked_argument(repository, field="REPOSITORY"), field="REPOSITORY")
    name = model
    if name is None:
        known = published.models()
        if len(known) != 1:
            raise UserError(
                f"the repository holds {len(known)} models.",
                field="--model",
                value=repository,
                remedy=f"Name one: {', '.join(known)}." if known else "Publish one with `edgefolio make`.",
            )
        name = known[0]
    pointer = published.current(name)
    if revision is None or (pointer is not None and revision == pointer.revision):
        _, manifest = published.current_manifest(name)
    else:
        manifest = published.manifest(name, revision)
    say(f"report: {write_report(manifest, output, timeline=run)}")
    return 0
