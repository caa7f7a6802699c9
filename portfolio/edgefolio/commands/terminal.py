"""Safe output of the commands: no untrusted text on it moves the cursor or begins a line of its own."""

from __future__ import annotations

from collections.abc import Iterable

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from edgefolio.shown_text import printable


class Terminal(Console):
    """A rich console that makes every text printable, in tables and trees as well.

    Names and messages come from models, manifests, files and agents. Rich itself removes some control characters, but
    not escape.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's hook for each part of what is printed."""
        if isinstance(renderable, str):
            renderable = printable(renderable)
        elif isinstance(renderable, Text) and not renderable.plain.isprintable():
            shown = renderable.blank_copy(printable(renderable.plain))
            if len(shown.plain) == len(renderable.plain):
                shown.spans = renderable.spans
            renderable = shown
        return super().render(renderable, options)


def say(text: str, *, error: bool = False) -> None:
    """Print ``text`` on one line of standard output, or of standard error."""
    typer.echo(printable(text), err=error)
