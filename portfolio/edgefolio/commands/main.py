"""The ``edgefolio`` command line: loads the rooms' commands and names missing extras."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from edgefolio.commands.program import guarded, new_program, print_error, write_by_lines
from edgefolio.errors import EXIT_FAILURE, EdgefolioError, UserError

COMMAND_GROUP = "edgefolio.commands"
#: In the order of the workflow, as in ``--help``.
COMMAND_ORDER = (
    "check",
    "make",
    "split",
    "shrink",
    "profile",
    "verify",
    "serve",
    "run",
    "explain",
    "replay",
    "report",
    "keygen",
)
#: The extra that a room needs, by its package.
EXTRA_OF_PACKAGE = {"edgefolio_pruner": "pruner", "edgefolio_edge": "edge", "edgefolio_operator": "operator"}

HELP = """Make a portfolio of pruned variants of one model, and keep the variant that fits served.

A first round, on one machine:

  edgefolio check  -f examples/digits.yaml     # what is understood; nothing is trained

  edgefolio make   -f examples/digits.yaml     # train, prune, profile, publish

  edgefolio verify ./portfolios                # re-check every byte of it

  edgefolio run    -f examples/digits.yaml     # serve it; switch with the load

Exit codes: 0 done, 1 failed, 2 bad input (the message gives the remedy), 3 no candidate meets the accuracy floor.
"""


def build_app() -> typer.Typer:
    """The Typer application with every room's commands. Rooms load heavy libraries only inside their commands."""
    app = new_program("edgefolio", help_text=HELP)
    found = {point.name: point for point in entry_points(group=COMMAND_GROUP)}
    for name in sorted(found, key=lambda name: (COMMAND_ORDER.index(name) if name in COMMAND_ORDER else 99, name)):
        app.command(name)(guarded(_loaded(found[name])))
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # ONNX Runtime sends telemetry on Linux by default; nothing at the edge may call out.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    write_by_lines()
    build_app()(args=arguments)


def _loaded(point: EntryPoint) -> Callable[..., int | None]:
    """Load the command of the entry ``point``; a missing package is reported with its extra."""
    command: Callable[..., int | None] = point.load()

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> int | None:
        try:
            return command(*arguments, **options)
        except ModuleNotFoundError as error:
            print_error(_missing_extra(error))
            raise typer.Exit(EXIT_FAILURE) from error

    return run


def _missing_extra(error: ModuleNotFoundError) -> EdgefolioError:
    """Name the extra to install, that of the innermost room on the traceback."""
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
