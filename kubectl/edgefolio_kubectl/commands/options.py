"""Options that several commands share, with one wording."""

from __future__ import annotations

from typing import Any

import typer

NAMESPACE: Any = typer.Option(None, "-n", "--namespace", help="Namespace; default: the context's.")
CONTEXT: Any = typer.Option(None, "--context", help="Context of the kubeconfig; default: the current one.")
KUBECONFIG: Any = typer.Option(None, "--kubeconfig", help="Path of the kubeconfig; default: as kubectl.")
JSON: Any = typer.Option(False, "--json", help="Print one JSON object to standard output.")
ENDPOINT: Any = typer.Argument(
    ..., metavar="ENDPOINT", help="Name of a ModelEndpoint (its pod's name), or of its node where it is the only one."
)
