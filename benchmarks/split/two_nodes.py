"""Two nodes on one machine: network namespaces with a wire between them, a worker in each, one core each. Root, Linux.

Kernels without netem limit the rate alone (``tbf``), and its bucket lets small packets through at once: what is said of
latency holds for the rate, not for a delay.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

NAMES = ("efx-one", "efx-two")
WIRES = ("efx-wire-1", "efx-wire-2")
ADDRESSES = ("10.83.7.1", "10.83.7.2")
PORT = 8004


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def shape(node: int, rate: str | None) -> None:
    """Limit what ``node`` sends to a rate as tc writes it; ``None`` lifts the limit."""
    wire, inside = WIRES[node], ["netns", "exec", NAMES[node], "tc", "qdisc"]
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip(*inside, "del", "dev", wire, "root")
    if rate is not None:
        _ip(*inside, "add", "dev", wire, "root", "tbf", "rate", rate, "burst", "32kb", "latency", "400ms")


def set_link(node: int, state: str) -> None:
    """Take the wire of ``node`` ``up`` or ``down``."""
    _ip("-n", NAMES[node], "link", "set", WIRES[node], state)


@contextlib.contextmanager
def two_nodes() -> Iterator[None]:
    """The namespaces and the wire, for the context."""
    if os.geteuid() != 0 or sys.platform != "linux":
        sys.exit("This benchmark makes network namespaces: it needs root on Linux.")
    try:
        for name in NAMES:
            _ip("netns", "add", name)
        _ip("link", "add", WIRES[0], "netns", NAMES[0], "type", "veth", "peer", "name", WIRES[1], "netns", NAMES[1])
        for name, wire, address in zip(NAMES, WIRES, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", wire)
            _ip("-n", name, "link", "set", wire, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


@dataclass
class Process:
    """A process in the namespace of a node, on its core; what it prints is kept as JSON lines where it is JSON."""

    node: int
    command: Sequence[str]
    cores: Sequence[int]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Process:
        core = str(self.cores[self.node % len(self.cores)])
        inside = ["ip", "netns", "exec", NAMES[self.node], "taskset", "-c", core, *self.command]
        self.process = subprocess.Popen(inside, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.send(number)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
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

    def wait_for(self, event: str, *, seconds: float = 120.0) -> dict[str, Any]:
        """The first line of an event."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = next((line for line in list(self.lines) if line.get("event") == event), None)
            if found is not None:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"no {event} within {seconds:.0f} s: {self.lines[-3:]}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(text))


def serve(
    node: int, *, repository: Path, set_file: Path, identity: Path, variant: str, cores: Sequence[int], model: str
) -> Process:
    """`edgefolio serve` of the worker of a node."""
    command = [sys.executable, "-m", "edgefolio.commands.main", "serve", "--repository", str(repository)]
    command += ["--model", model, "--variant", variant, "--worker-set", str(set_file), "--rank", str(node)]
    command += ["--identity", str(identity), "--grpc-port", "0", "--metrics-port", "0", "--json"]
    return Process(node, command, cores)
