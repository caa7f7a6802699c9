"""Standard output that belongs to one JSON object, whatever the network's own code prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

import typer


@contextmanager
def output_kept_for_json(*, active: bool) -> Iterator[Callable[[str], None]]:
    """What anything else writes to standard output meanwhile goes to standard error; yields the printer of the object.

    Also what libraries and child processes write to file descriptor 1. Does nothing unless ``active``.
    """
    if not active:
        yield typer.echo
        return
    stdout = sys.stdout
    stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)

        def print_document(text: str) -> None:
            sys.stdout.flush()
            stdout.flush()
            os.dup2(kept, 1)
            try:
                typer.echo(text, file=stdout)
                stdout.flush()
            finally:
                os.dup2(2, 1)

        with redirect_stdout(sys.stderr):
            yield print_document
    finally:
        stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
