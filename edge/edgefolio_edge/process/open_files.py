"""Limit of open files: with the usual soft limit of 1024, a thousand idle connections take a server's last one."""

from __future__ import annotations

import contextlib
import resource

#: Enough for any number of clients; some machines set a hard limit of a billion, for which programs keep tables.
_ENOUGH = 65_536


def raise_open_files_limit() -> None:
    """Raise this process's soft limit to the hard one; programs that it starts inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
