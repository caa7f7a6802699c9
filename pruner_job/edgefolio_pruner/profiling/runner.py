"""Runner process of one model, a file or several in turn: ``python -m edgefolio_pruner.profiling.runner``.

It reads one JSON command per line from standard input and answers each with one JSON line. It loads nothing but numpy
and the runtime, so that memory above the empty runtime is the variant's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgefolio_pruner.profiling.memory import (
    peak_resident_bytes,
    proportional_bytes,
    reset_peak,
    resident_bytes,
)
from edgefolio_pruner.profiling.session import open_session


class Runner:
    """A session for each file, and their inputs by batch size."""

    def __init__(self) -> None:
        self._sessions: list[Any] = []
        self._feeds: dict[int, list[dict[str, Any]]] = {}

    def load(
        self,
        *,
        paths: list[str],
        empty_path: str,
        threads: int,
        batch_sizes: list[int],
        inputs: list[dict[str, tuple[str, list[int]]]],
    ) -> dict[str, Any]:
        """Create the sessions, run every batch once, and report time and memory (bytes above the empty runtime)."""
        generator = np.random.default_rng(0)
        self._feeds = {
            batch: [
                {name: _filled(generator, kind, (batch, *shape)) for name, (kind, shape) in each.items()}
                for each in inputs
            ]
            for batch in batch_sizes
        }
        # The runtime's own one-time allocations happen here, and are not the variant's.
        empty = open_session(empty_path, threads=threads, spinning=False)
        empty.run(None, {empty.get_inputs()[0].name: np.zeros((1, 1), dtype=np.float32)})
        for path in paths:
            Path(path).read_bytes()  # the file's pages are in the page cache for every variant alike
        _release_free_memory()
        proportional, resident = proportional_bytes(), resident_bytes()
        reset_peak()
        started = time.perf_counter()
        # One variant's spinning thread would take CPU from the measured one.
        self._sessions = [open_session(path, threads=threads, spinning=False) for path in paths]
        load_milliseconds = (time.perf_counter() - started) * 1e3
        for feeds in self._feeds.values():
            self._run(feeds)
        peak = peak_resident_bytes() - resident
        _release_free_memory()
        steady = proportional_bytes() - proportional
        return {
            "load_milliseconds": load_milliseconds,
            "memory_peak_bytes": max(peak, steady, 0),
            "memory_steady_bytes": max(steady, 0),
            "onnxruntime_version": onnxruntime.__version__,
        }

    def run(self, *, batch: int, samples: int, warm_up: int) -> dict[str, Any]:
        """Latencies of ``samples`` runs in milliseconds, after ``warm_up`` runs that do not count."""
        feeds = self._feeds[batch]
        for _ in range(warm_up):
            self._run(feeds)
        latencies = []
        gc.disable()
        for _ in range(samples):
            started = time.perf_counter_ns()
            self._run(feeds)
            latencies.append((time.perf_counter_ns() - started) / 1e6)
        gc.enable()
        return {"latencies": latencies}

    def _run(self, feeds: list[dict[str, Any]]) -> None:
        for session, given in zip(self._sessions, feeds, strict=True):
            session.run(None, given)


def _filled(generator: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Any:
    """Random numbers; what travels as bytes is bytes."""
    if kind == "uint8":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.standard_normal(shape, dtype=np.float32)


def _release_free_memory() -> None:
    """Return freed memory to the system, so that only live memory is measured."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def main() -> None:
    """Serve commands until standard input ends."""
    # Ctrl-C reaches every process of the terminal; the parent ends this one by closing its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runner = Runner()
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        name = command.pop("command")
        try:
            answer = getattr(runner, {"load": "load", "run": "run"}[name])(**command)
        except Exception as error:  # the parent raises it with the variant's name
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
