"""The server under test: ``edgefolio run`` or ``serve`` as a user starts it, watched through its JSON lines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

START_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Three free ports on loopback."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls) -> Ports:
        """Ask the kernel for three ports."""
        sockets = [socket.socket() for _ in range(3)]
        try:
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            http, grpc, metrics = (each.getsockname()[1] for each in sockets)
            return cls(http=http, grpc=grpc, metrics=metrics)
        finally:
            for each in sockets:
                each.close()

    def options(self) -> list[str]:
        """The options of ``edgefolio run`` and ``edgefolio serve``."""
        return [
            "--http-port", str(self.http),
            "--grpc-port", str(self.grpc),
            "--metrics-port", str(self.metrics),
        ]  # fmt: skip


class Edgefolio:
    """One ``edgefolio`` process that prints JSON lines; a context manager. Lines carry the time of their arrival."""

    def __init__(self, arguments: list[str], *, cpus: frozenset[int], log: Path) -> None:
        self.arguments = arguments
        self._cpus = cpus
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.lines: list[tuple[float, dict[str, Any]]] = []

    def __enter__(self) -> Edgefolio:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process on its processors (its children inherit them)."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgefolio.commands.main", *self.arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        os.sched_setaffinity(self._process.pid, self._cpus)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with self._log.open("a") as log:
            for text in process.stdout:
                log.write(text)
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    self.lines.append((time.monotonic(), line))

    def kill(self) -> None:
        """SIGKILL the process alone: what it started lives on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End the process as Ctrl-C does and return its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout=5)
        return code

    def events(self, name: str, *, since: float = 0.0) -> list[tuple[float, dict[str, Any]]]:
        """The lines whose ``event`` is ``name``, with their arrival, from the instant ``since`` on."""
        return [(at, line) for at, line in self.lines if line.get("event") == name and at >= since]

    def wait_for(self, name: str, *, since: float = 0.0, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The first line whose ``event`` is ``name``. Raises TimeoutError with the tail of the log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.events(name, since=since):
                return found[0][1]
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.05)
        tail = "\n".join(self._log.read_text().splitlines()[-15:])
        raise TimeoutError(f"edgefolio {self.arguments[0]} gave no {name!r} within {seconds:.0f} s:\n{tail}")
