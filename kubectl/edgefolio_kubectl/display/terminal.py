"""The rich console of the commands."""

from __future__ import annotations

import os
import sys

from edgefolio.commands.terminal import Terminal

#: Width where there is no terminal: a pipe or a file.
_PIPE_COLUMNS = 100


def console() -> Terminal:
    """Standard output: colours and the real width on a terminal, neither in a pipe."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_COLUMNS
    return Terminal(highlight=False, width=width)
