"""The rich console of the commands."""

from __future__ import annotations

import os
import sys

from rich.console import Console

#: Width where there is no terminal: a pipe or a file.
_PIPE_COLUMNS = 100


def console() -> Console:
    """Standard output: colours and the real width on a terminal, neither in a pipe."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS
    return Console(highlight=False, width=width)
