"""Base of the command-line programs: common options, errors and exit codes, line-buffered output."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.text import Text

from edgefolio import __version__
from edgefolio.commands.terminal import Terminal
from edgefolio.errors import EdgefolioError, IntegrityError, UserError, out_of_memory


def new_program(name: str, *, help_text: str) -> typer.Typer:
    """A Typer app without commands; ``name`` is what users type, the file name has hyphens for its spaces."""
    app = typer.Typer(
        name=name, help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )

    def show_version(requested: bool) -> None:
        if requested:
            typer.echo(f"{name.replace(' ', '-')} {__version__}")
            raise typer.Exit

    def root(
        version: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        """Take the options that stand before a command."""

    app.callback()(root)
    return app


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """Wrap ``command``: its result is the exit code, and errors end it with a message, not a traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            code = command(*arguments, **options)
        except EdgefolioError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except Exception as error:
            full = out_of_memory(error)
            if full is None:
                raise
            print_error(full)
            raise typer.Exit(full.exit_code) from error
        if code:
            raise typer.Exit(code)

    return run


def write_by_lines() -> None:
    """Line-buffer stdout and stderr: the output of long runs goes to logs and pipes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)


def print_error(error: EdgefolioError) -> None:
    """Print ``error`` to standard error: what is wrong, where, and the next step."""
    console = Terminal(stderr=True, highlight=False, soft_wrap=True)
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
