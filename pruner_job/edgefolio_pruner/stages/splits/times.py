"""Times of candidates and of splits on this machine, measured in turn so that noise affects all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgefolio_pruner.profiling.session import open_session
from edgefolio_split.executor import SplitExecutor

__all__ = ["measured_times"]

_ROUNDS, _RUNS = 5, 6


def measured_times(
    candidates: Sequence[Path], executors: Sequence[SplitExecutor], sample: npt.NDArray[np.float32]
) -> tuple[list[float], list[list[float]]]:
    """Median milliseconds of each candidate and of each worker of each split; all take turns on one thread."""
    sessions = [open_session(path, threads=1) for path in candidates]
    single: list[list[float]] = [[] for _ in sessions]
    workers: list[list[tuple[float, ...]]] = [[] for _ in executors]
    for _ in range(_ROUNDS):
        for session, found in zip(sessions, single, strict=True):
            given = {session.get_inputs()[0].name: sample}
            session.run(None, given)
            for _ in range(_RUNS):
                start = time.perf_counter()
                session.run(None, given)
                found.append(1000 * (time.perf_counter() - start))
        for executor, taken in zip(executors, workers, strict=True):
            executor.run(sample)
            taken += [executor.run(sample).milliseconds for _ in range(_RUNS)]
    return (
        [statistics.median(found) for found in single],
        [[statistics.median(of) for of in zip(*taken, strict=True)] for taken in workers],
    )
