"""Time of several ONNX models, interleaved: every round runs each model once, in a new order."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP = 5


def interleaved(
    paths: Mapping[str, Path], *, shape: tuple[int, ...], batch: int, rounds: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds per run, per clock (``wall``, ``cpu``), model and round; the calling thread does all the work.

    What disturbs the machine hits all models of a round alike, so ratios are taken within rounds. On a busy machine the
    processor time of the thread is what the wall clock of an idle one would show; the wall clock counts others' work.
    """
    sessions = {name: _session(path) for name, path in paths.items()}
    images = np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)
    order = random.Random(seed)
    times: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in paths} for clock in ("wall", "cpu")}
    names = list(paths)
    for turn in range(-WARM_UP, rounds):
        order.shuffle(names)
        for name in names:
            wall, cpu = time.perf_counter(), time.thread_time()
            sessions[name].run(None, {"input": images})
            if turn >= 0:
                times["cpu"][name].append(time.thread_time() - cpu)
                times["wall"][name].append(time.perf_counter() - wall)
    return times


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
