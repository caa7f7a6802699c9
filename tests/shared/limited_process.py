"""Processes under a memory limit, so that a bound on memory is the kernel's and not the test's word."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

#: Ends what hangs; no test measures time by it.
_SECONDS = 120


def run_limited(code: str, *arguments: object, memory: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` (Python, its arguments in ``sys.argv``) in ``folder`` with ``memory`` bytes of address space.

    Before ``#limit`` the code is free, so that imports don't count: the limit is what is used there, and ``memory``.
    """
    before, _, limited = code.partition("#limit\n")
    if limited:
        code = f"{before}import limited_process\nlimited_process.limit_further({memory})\n{limited}"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "200"},
        preexec_fn=None if limited else lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )


def limit_further(memory: int) -> None:
    """Limit this process to ``memory`` bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
