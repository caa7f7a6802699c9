"""Process that runs files with the kernels of one kind of processor.

``worker.py FOLDER LACKS INPUTS OUT BATCH FILE...``
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

_ROUNDS = 15


def main() -> None:
    """Write the answers to OUT; print the best time of a batch for each file, in milliseconds, as JSON."""
    folder, lacks, inputs, out, batch, *files = sys.argv[1:]
    ctypes.CDLL(f"{folder}/handler.so").hide(int(lacks))
    sys.path.insert(0, folder)
    import numpy as np
    import onnxruntime

    assert Path(onnxruntime.__file__).is_relative_to(folder)
    samples = np.load(inputs)
    sessions: list[Any] = []
    for file in files:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        sessions.append(onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]))
    feeds = {sessions[0].get_inputs()[0].name: samples[: int(batch)]}
    best = [float("inf")] * len(files)
    for _ in range(_ROUNDS):
        for position, session in enumerate(sessions):
            started = time.perf_counter()
            session.run(None, feeds)
            best[position] = min(best[position], time.perf_counter() - started)
    answers = []
    for session in sessions:
        name = session.get_inputs()[0].name
        parts = [session.run(None, {name: samples[start : start + 64]})[0] for start in range(0, len(samples), 64)]
        answers.append(np.concatenate(parts))
    np.save(out, np.stack(answers))
    print(json.dumps([1e3 * seconds for seconds in best]))


if __name__ == "__main__":
    main()
