"""The ``edgefolio`` command as a user starts it, watched through its JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: A shared machine may be slow; nothing here waits for the time to pass.
PATIENCE_SECONDS = 60.0

QUICK_SWITCHING = {
    "observeSeconds": "0.2",
    "downAfterSeconds": 1,
    "upAfterSeconds": 1,
    "minDwellSeconds": 0,
    "settleSeconds": 0,
    "probeIntervalSeconds": 1,
    "maxSwitchesPerHour": 3600,
}


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until ``holds`` does; fail if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write_portfolio(
    path: Path, *, repository: Path, model: str, objectives: Mapping[str, Any] | None = None, **spec: Any
) -> None:
    """A ModelPortfolio file, replaced in one step as editors do."""
    document = {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelPortfolio",
        "metadata": {"name": "test"},
        "spec": {
            "repository": {"uri": str(repository)},
            "serving": {"modelName": model},
            "objectives": dict(objectives or {}),
            "switching": QUICK_SWITCHING,
            **spec,
        },
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)


class Command:
    """One ``edgefolio`` process; a context manager that stops it as Ctrl-C does."""

    def __init__(
        self,
        *arguments: str,
        temporary: Path | None = None,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """``temporary`` is the directory for its temporary files; ``prefix`` is a command that starts it."""
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "edgefolio.commands.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                **({"TMPDIR": str(temporary)} if temporary is not None else {}),
                **(environment or {}),
            },
        )
        self.lines: list[dict[str, Any]] = []
        self.errors = ""
        self._readers = [threading.Thread(target=self._read_lines), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(json.loads(text))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.errors += text

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(timeout=PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join(timeout=10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def kill(self) -> None:
        """SIGKILL it alone; what it started lives on."""
        self.process.kill()
        self.wait()

    def events(self, name: str, *, after: int = 0, **facts: Any) -> list[dict[str, Any]]:
        """Lines of this event from the line number ``after`` on, that carry ``facts``."""
        return [
            line
            for line in self.lines[after:]
            if line["event"] == name and all(line.get(key) == value for key, value in facts.items())
        ]

    def wait_for(
        self, name: str, *, after: int = 0, patience: float = PATIENCE_SECONDS, **facts: Any
    ) -> dict[str, Any]:
        """The first such line. Fails with everything that was said instead."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if found := self.events(name, after=after, **facts):
                return found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {name} {facts} in {self.lines}; {self.errors}")
