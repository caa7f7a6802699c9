"""The ``edgefolio`` command line: finds the rooms' commands, and prints a user's mistakes as a user can mend them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from edgefolio import __version__
from edgefolio.errors import EXIT_FAILURE, EdgefolioError, IntegrityError, UserError

COMMAND_GROUP = "edgefolio.commands"
#: The way of the data, which is also the order in ``--help``.
COMMAND_ORDER = ("make", "shrink", "verify", "serve", "run", "explain", "replay", "report")
#: The extra that a room needs, by its package.
EXTRA_OF_PACKAGE = {"edgefolio_pruner": "pruner", "edgefolio_edge": "edge", "edgefolio_operator": "operator"}

HELP = """Make a portfolio of pruned variants of one model, and keep the variant that fits served.

A first round, on one machine:

  edgefolio make   -f examples/digits.yaml     # train, prune, profile, publish

  edgefolio verify ./portfolios                # re-check every byte of it

  edgefolio run    -f examples/digits.yaml     # serve it; switch with the load

Exit codes: 0 done, 1 failed, 2 the input needs mending (the message says how), 3 an accuracy floor nobody meets.
"""


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"edgefolio {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Take the options that stand before a command."""


def build_app() -> typer.Typer:
    """The Typer application with every room's commands. Rooms load heavy libraries only inside their commands."""
    app = typer.Typer(
        name="edgefolio", help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    found = {point.name: point for point in entry_points(group=COMMAND_GROUP)}
    for name in sorted(found, key=lambda name: (COMMAND_ORDER.index(name) if name in COMMAND_ORDER else 99, name)):
        app.command(name)(_loaded(found[name]))
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # ONNX Runtime on Linux reports its use unless told not to; what runs at the edge must not call anywhere.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Long work ends up in logs and pipes; a line is wanted there when it happens.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
    build_app()(args=arguments)


def print_error(error: EdgefolioError) -> None:
    """Print ``error`` to standard error: what is wrong, where, and the next step."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if isinstance(error, UserError):
        shown = "" if error.value is None else f" = {error.value}"
        console.print(Text("error: ", style="bold red") + Text(error.problem))
        console.print(Text(f"  field:  {error.field}{shown}"))
        console.print(Text(f"  remedy: {error.remedy}"))
    elif isinstance(error, IntegrityError):
        console.print(Text("error: ", style="bold red") + Text(error.problem))
        console.print(Text(f"  where:  {error.location}"))
        console.print(Text(f"  remedy: {error.remedy}"))
    else:
        console.print(Text("error: ", style="bold red") + Text(str(error)))


def _loaded(point: EntryPoint) -> Callable[..., None]:
    """The command behind ``point``; a user's mistake ends it with a message and the exit code, not a traceback."""
    command: Callable[..., int | None] = point.load()

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            code = command(*arguments, **options)
        except EdgefolioError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except ModuleNotFoundError as error:
            print_error(_missing_extra(error))
            raise typer.Exit(EXIT_FAILURE) from error
        if code:
            raise typer.Exit(code)

    return run


def _missing_extra(error: ModuleNotFoundError) -> EdgefolioError:
    """Name the extra to install: the innermost room on the traceback is the one that lacks something."""
    extra = None
    traceback = error.__traceback__
    while traceback is not None:
        package = str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        extra = EXTRA_OF_PACKAGE.get(package, extra)
        traceback = traceback.tb_next
    if extra is None:
        raise error
    return UserError(
        f"this command needs the Python package {error.name!r}, which is not installed.",
        field="installation",
        remedy=f"Run: pip install 'edgefolio[{extra}]'",
    )


if __name__ == "__main__":
    main()
