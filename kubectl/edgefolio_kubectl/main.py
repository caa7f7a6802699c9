"""The ``kubectl-edgefolio`` program, which kubectl finds on the PATH as ``kubectl edgefolio``."""

from __future__ import annotations

import os
import sys

import typer

from edgefolio.commands.program import guarded, new_program, write_by_lines
from edgefolio.errors import EXIT_FAILURE

COMMANDS = ("status", "explain", "history", "pin", "unpin", "pause", "resume", "make")

HELP = """See what Edgefolio does in a cluster, and why; and the few orders that people give.

A first round:

  kubectl edgefolio status             # what serves where, and why

  kubectl edgefolio explain edge-1     # why not another variant there

  kubectl edgefolio history edge-1     # what it served before, and why it changed

  kubectl edgefolio pin edge-1 dense   # this one, whatever the figures say

  kubectl edgefolio unpin edge-1       # keep the one that fits again

The kubeconfig, its login plug-ins and the namespace are those of kubectl.

Exit codes: 0 done, 1 the API server is unreachable or refuses, 2 bad input (the message gives the remedy).
"""


def build_app() -> typer.Typer:
    """The Typer application with all commands."""

    from edgefolio_kubectl.commands import explain, history, orders, status

    app = new_program("kubectl edgefolio", help_text=HELP)
    functions = {**vars(status), **vars(explain), **vars(history), **vars(orders)}
    for name in COMMANDS:
        app.command(name)(guarded(functions[name]))
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit with its code."""
    write_by_lines()
    try:
        app = build_app()
    except ModuleNotFoundError as error:
        print(
            f"error: kubectl edgefolio needs the Python package {error.name!r}. Run: pip install 'edgefolio[kubectl]'",
            file=sys.stderr,
        )
        sys.exit(EXIT_FAILURE)
    try:
        app(args=arguments, prog_name="kubectl edgefolio")
    except BrokenPipeError:
        # kubectl hands its own standard streams to plug-ins; a closed pipe is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)


if __name__ == "__main__":
    main()
