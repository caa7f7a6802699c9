"""Two nodes on one machine: network namespaces with a wire between them (root, Linux), or both on loopback.

Kernels without netem limit the rate alone (``tbf``), and its bucket lets small packets through at once: what is said of
latency holds for the rate, not for a delay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from demo.split.process import Process

__all__ = ["ADDRESSES", "PORT", "WireError", "inside", "serve", "set_link", "shape", "two_nodes"]

NAMES = ("efx-one", "efx-two")
WIRES = ("efx-wire-1", "efx-wire-2")
ADDRESSES = ("10.83.7.1", "10.83.7.2")
PORT = 8004


class WireError(RuntimeError):
    """This machine gives no two nodes with a wire; the text says why."""


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def inside(node: int) -> list[str]:
    """What begins a command that runs in the namespace of ``node``."""
    return ["ip", "netns", "exec", NAMES[node]]


def shape(node: int, rate: str | None) -> None:
    """Limit what ``node`` sends to a rate as tc writes it; ``None`` lifts the limit. Raises CalledProcessError."""
    wire, qdisc = WIRES[node], ["netns", "exec", NAMES[node], "tc", "qdisc"]
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip(*qdisc, "del", "dev", wire, "root")
    if rate is not None:
        _ip(*qdisc, "add", "dev", wire, "root", "tbf", "rate", rate, "burst", "32kb", "latency", "400ms")


def set_link(node: int, state: str) -> None:
    """Take the wire of ``node`` ``up`` or ``down``."""
    _ip("-n", NAMES[node], "link", "set", WIRES[node], state)


@contextlib.contextmanager
def two_nodes() -> Iterator[None]:
    """The namespaces and the wire, for the context. Raises :class:`WireError`."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise WireError("network namespaces need root on Linux")
    missing = [name for name in ("ip", "taskset") if shutil.which(name) is None]
    if missing:
        raise WireError(f"there is no program `{missing[0]}`")
    for name in NAMES:
        _remove_left_over(name)
    try:
        try:
            _lay_wire()
        except subprocess.CalledProcessError as error:
            raise WireError(f"`ip` says: {(error.stderr or '').strip() or error}") from error
        yield
    finally:
        for name in NAMES:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _lay_wire() -> None:
    for name in NAMES:
        _ip("netns", "add", name)
    _ip("link", "add", WIRES[0], "netns", NAMES[0], "type", "veth", "peer", "name", WIRES[1], "netns", NAMES[1])
    for name, wire, address in zip(NAMES, WIRES, ADDRESSES, strict=True):
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", wire)
        _ip("-n", name, "link", "set", wire, "up")
        _ip("-n", name, "link", "set", "lo", "up")


def _remove_left_over(name: str) -> None:
    """Remove a namespace that a killed run left, unless something runs in it: that is another run."""
    try:
        running = _ip("netns", "pids", name).split()
    except subprocess.CalledProcessError:
        return  # there is none
    if running:
        raise WireError(f"processes run in the namespace {name}: another run, or what is left of one")
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip("netns", "del", name)


def serve(
    node: int,
    *,
    repository: Path,
    set_file: Path,
    identity: Path,
    variant: str,
    cores: Sequence[int],
    model: str,
    is_wired: bool = True,
    log: Path | None = None,
    temporary: Path | None = None,
) -> Process:
    """`edgefolio serve` of the worker of a node; ``temporary`` is where it keeps its files while it runs."""
    command = [sys.executable, "-m", "edgefolio.commands.main", "serve", "--repository", str(repository)]
    command += ["--model", model, "--variant", variant, "--worker-set", str(set_file), "--rank", str(node)]
    command += ["--identity", str(identity), "--grpc-port", "0", "--metrics-port", "0", "--worker-metrics-port", "0"]
    return Process(
        node, [*command, "--json"], cores, prefix=inside(node) if is_wired else (), log=log, temporary=temporary
    )
