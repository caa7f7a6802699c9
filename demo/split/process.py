"""A process of a node: on one core, in the node's namespace if it has one, watched through its JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = ["ROOT", "Process"]

ROOT = Path(__file__).resolve().parents[2]
#: What a process gets to end by itself.
_ENDING_SECONDS = 60.0


@dataclass
class Process:
    """A process of a node; a context manager that ends it. ``cores`` are shared out by node.

    ``prefix`` begins its command, ``log`` gets what it says on standard error, ``temporary`` is its ``TMPDIR``. What it
    prints is kept as JSON lines where it is JSON.
    """

    node: int
    command: Sequence[str]
    cores: Sequence[int]
    lines: list[dict[str, Any]] = field(default_factory=list)
    prefix: Sequence[str] = ()
    log: Path | None = None
    temporary: Path | None = None

    def __enter__(self) -> Process:
        core = str(self.cores[self.node % len(self.cores)])
        environment = None if self.temporary is None else {**os.environ, "TMPDIR": str(self.temporary)}
        with contextlib.ExitStack() as stack:
            log = None if self.log is None else stack.enter_context(self.log.open("a"))
            self.process = subprocess.Popen(
                [*self.prefix, "taskset", "-c", core, *self.command],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # A terminal's Ctrl-C is for whoever started it, who ends it then.
                start_new_session=True,
                cwd=ROOT,
                env=environment,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.send(number)
        try:
            self.process.wait(timeout=_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL, everywhere=True)
            self.process.wait()

    def all(self) -> list[psutil.Process]:
        """It and everything below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def named(self, part: str) -> psutil.Process:
        """The process below it with this in its name."""
        return next(each for each in self.all() if part in each.name())

    def send(self, number: signal.Signals, *, everywhere: bool = False) -> None:
        """Send it a signal; ``everywhere``: all below it, too."""
        for each in self.all() if everywhere or number == signal.SIGCONT else self.all()[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def wait_for(self, event: str, *, seconds: float = 240.0) -> dict[str, Any]:
        """The first line of an event. Raises TimeoutError, at once if the process has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            has_ended = self.process.poll() is not None
            if has_ended:
                self._reader.join(timeout=5)
            found = next((line for line in list(self.lines) if line.get("event") == event), None)
            if found is not None:
                return found
            if has_ended:
                break
            time.sleep(0.02)
        raise TimeoutError(f"no {event} within {seconds:.0f} s of node {self.node}: {self.lines[-3:]}{self._tail()}")

    def _tail(self) -> str:
        if self.log is None:
            return ""
        return "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(text))
