"""``edgefolio verify``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from edgefolio.commands.terminal import Terminal
from edgefolio.errors import EXIT_BAD_INPUT, EXIT_OK

if TYPE_CHECKING:
    from edgefolio_edge.models.repository_audit import Verification


def verify(
    uri: str = typer.Argument(..., metavar="URI", help="The repository: a directory or s3://bucket/prefix."),
    model: str | None = typer.Option(None, help="Check this model alone. Default: all models."),
    verification_key: str | None = typer.Option(
        None, metavar="KEY", help="Require this public key's signature: a line RW..., or a .pub file."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object to standard output."),
) -> int:
    """Check a repository again: pointers, digests, schemas, ONNX, probe outputs and, with a key, signatures.

    Every revision is checked; each finding names its place.

    Example: edgefolio verify ./portfolios --model digits

    Exit codes: 0 all is sound; 2 something is wrong, or there is nothing to check.
    """
    from edgefolio.repository import Repository
    from edgefolio.repository.signature import key_from_option
    from edgefolio.repository.storage import checked_argument
    from edgefolio_edge.models.repository_audit import verify_repository

    verification = verify_repository(
        Repository.open(
            checked_argument(uri, field="URI"), field="URI", verification_key=key_from_option(verification_key)
        ),
        model=model,
    )
    if as_json:
        typer.echo(json.dumps(_document(verification), indent=2))
    else:
        _print(verification)
    return EXIT_OK if verification.is_sound else EXIT_BAD_INPUT


def _document(verification: Verification) -> dict[str, object]:
    return {
        "uri": verification.uri,
        "sound": verification.is_sound,
        "revisions": [
            {
                "model": revision.model,
                "revision": revision.revision,
                "current": revision.is_current,
                "soundVariants": list(revision.variants),
            }
            for revision in verification.revisions
        ],
        "findings": [
            {"location": finding.location, "problem": finding.problem} for finding in verification.all_findings
        ],
    }


def _print(verification: Verification) -> None:
    console = Terminal(highlight=False, soft_wrap=True)
    for revision in verification.revisions:
        mark = Text("broken", style="bold red") if revision.findings else Text("sound ", style="green")
        current = ", current" if revision.is_current else ""
        names = ", ".join(revision.variants) or "no variant"
        console.print(
            mark + Text(f"  {revision.model}, revision {revision.revision}{current}: {names}", style="default")
        )
    for finding in verification.all_findings:
        console.print(Text("wrong: ", style="bold red") + Text(finding.problem, style="default"))
        console.print(Text(f"  where: {finding.location}"))
    if not verification.is_sound:
        console.print("remedy: publish the portfolio again with `edgefolio make`.")
