"""Clients in processes of their own, and what their records say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefolio_edge.triton.launcher.server import TritonServer

#: The old version's process is on its way out this long after a switch returned.
UNLOADING_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class SwitchRecord:
    """One switch, in seconds of the machine's monotonic clock."""

    began: float
    returned: float
    version: int
    load_milliseconds: float


class Load:
    """``processes`` closed-loop clients, alternately gRPC and HTTP; a context manager."""

    def __init__(
        self, server: TritonServer, *, model: str, processes: int, think_seconds: float, directory: Path
    ) -> None:
        self._outputs = [directory / f"client-{number}.npy" for number in range(processes)]
        self._commands = []
        for number, output in enumerate(self._outputs):
            protocol = "grpc" if number % 2 == 0 else "http"
            endpoint = server.grpc_endpoint if protocol == "grpc" else server.http_endpoint
            self._commands.append(
                [sys.executable, "-m", "benchmarks.switching.client", protocol, endpoint, model, str(think_seconds),
                 str(output)]
            )  # fmt: skip
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Load:
        for command in self._commands:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()
        return self

    def __exit__(self, *_exception: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(timeout=60)
            assert process.stdout is not None
            process.stdout.close()

    def rows(self) -> NDArray[np.float64]:
        """All requests, by the time of their answer. After the context has ended."""
        rows = np.concatenate([np.load(output) for output in self._outputs])
        ordered: NDArray[np.float64] = rows[np.argsort(rows[:, 1])]
        return ordered


def figures(rows: NDArray[np.float64], switches: Sequence[SwitchRecord], *, first_rank_version: int) -> dict[str, Any]:
    """What the records say. Versions count from ``first_rank_version``, the version of the variant with rank 1."""
    sent, answered, version, tag, failed = rows.T
    good = failed == 0
    milliseconds = 1e3 * (answered - sent)
    during = np.zeros(len(rows), bool)
    near = np.zeros(len(rows), bool)
    for switch in switches:
        during |= (answered > switch.began) & (sent < switch.returned)
        near |= (answered > switch.began) & (sent < switch.returned + UNLOADING_SECONDS)
    stale = sum(
        int(np.sum(good & (sent > one.returned) & (answered < other.began) & (version != one.version)))
        for one, other in pairwise(switches)
    )
    first_answers = []
    for switch in switches:
        by_new = np.flatnonzero(good & (answered > switch.began) & (version == switch.version))
        if len(by_new):
            first_answers.append(milliseconds[by_new[0]])
    gaps = 1e3 * np.diff(answered[good])
    steady, switching, unloading = (milliseconds[good & mask] for mask in (~near, during, near & ~during))
    return {
        "requests": len(rows),
        "switches": len(switches),
        "failed": int(np.sum(~good)),
        "wrongVersion": int(np.sum(good & (version - first_rank_version + 1 != tag))),
        "answeredByPreviousAfterSwitchReturned": stale,
        "requestsPerSecond": round(len(rows) / (answered[-1] - answered[0]), 1),
        "longestGapMilliseconds": round(float(gaps.max()), 1),
        "longestGapSteadyMilliseconds": round(float(gaps[~near[good][1:]].max(initial=0)), 1),
        "steady": _latencies(steady),
        "duringSwitch": _latencies(switching),
        "whileOldUnloads": _latencies(unloading),
        "firstAnswerByNewVersion": _latencies(np.array(first_answers)),
        "p99RatioDuringSwitch": round(float(np.percentile(switching, 99) / np.percentile(steady, 99)), 2),
        "loadMilliseconds": _latencies(np.array([switch.load_milliseconds for switch in switches])),
        "switchMilliseconds": _latencies(np.array([1e3 * (switch.returned - switch.began) for switch in switches])),
    }


def _latencies(milliseconds: NDArray[np.float64]) -> dict[str, Any]:
    if len(milliseconds) == 0:
        return {"samples": 0}
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return {
        "samples": len(milliseconds),
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "maximum": round(float(milliseconds.max()), 2),
    }
