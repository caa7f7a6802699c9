"""Children of this process, kept so that a dead one is reaped and leaves no zombie."""

from __future__ import annotations

import contextlib
import subprocess

from edgefolio_edge.triton.processes import ProcessIdentity

__all__ = ["keep", "reap"]

_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


def keep(process: subprocess.Popen[bytes]) -> None:
    """Keep a process that was started here until :func:`reap` has taken its exit status."""
    _CHILDREN[process.pid] = process


def reap(identity: ProcessIdentity, *, wait: bool = False) -> None:
    """Take the exit status of a process that ended, if it was started here; ``wait`` for it at most five seconds."""
    child = _CHILDREN.get(identity.pid)
    if child is None:
        return
    if wait:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
    if child.poll() is not None:
        del _CHILDREN[identity.pid]
