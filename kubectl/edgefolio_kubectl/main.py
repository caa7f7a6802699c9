"""The ``kubectl-edgefolio`` program, which kubectl finds on the PATH as ``kubectl edgefolio``."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from edgefolio import __version__
from edgefolio.commands.main import print_error
from edgefolio.errors import EXIT_FAILURE, EdgefolioError

COMMANDS = ("status", "explain", "pin", "unpin", "pause", "resume", "make")

HELP = """See what Edgefolio does in a cluster, and why; and the few orders that people give.

A first round:

  kubectl edgefolio status             # what serves where, and why

  kubectl edgefolio explain edge-1     # why not another variant there

  kubectl edgefolio pin edge-1 dense   # this one, whatever the figures say

  kubectl edgefolio unpin edge-1       # keep the one that fits again

The kubeconfig, its login plug-ins and the namespace are those of kubectl.

Exit codes: 0 done, 1 the API server cannot be asked or refuses, 2 the input needs mending (the message says how).
"""


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"kubectl-edgefolio {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Take the options that stand before a command."""


def build_app() -> typer.Typer:
    """The Typer application with all commands."""
    from edgefolio_kubectl import command_explain, command_orders, command_status

    app = typer.Typer(
        name="kubectl edgefolio", help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    functions = {**vars(command_status), **vars(command_explain), **vars(command_orders)}
    for name in COMMANDS:
        app.command(name)(_guarded(functions[name]))
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit with its code."""
    # kubectl starts plug-ins with its own standard streams; a reader that has seen enough is no error.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """``command``; a mistake or trouble ends it with a message and the exit code, not a traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except EdgefolioError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error

    return run


if __name__ == "__main__":
    main()
