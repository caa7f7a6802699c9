"""One client process: a closed loop over gRPC or HTTP, with Triton's own client, every answer checked and timed.

    python -m benchmarks.switching.client PROTOCOL ENDPOINT MODEL THINK_SECONDS OUTPUT.npy

It sends until its standard input is closed, then writes one row per request: sent, answered (seconds of the machine's
monotonic clock), version that the answer states, tag of the variant that computed it, 1 if it failed.
"""

from __future__ import annotations

import sys
import threading
import time
from importlib import import_module
from typing import Any

import numpy as np
from benchmarks.switching.portfolio import INPUT, OUTPUT, images, tag_of


def main(protocol: str, endpoint: str, model: str, think_seconds: float, output: str) -> None:
    """Send until told to stop."""
    tools: Any = import_module(f"tritonclient.{protocol}")
    client = tools.InferenceServerClient(endpoint)
    values = images()
    tensor = tools.InferInput(INPUT, list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    rows: list[tuple[float, float, int, int, int]] = []
    print("ready", flush=True)
    while not stop.is_set():
        sent = time.monotonic()
        try:
            result = client.infer(model, [tensor])
            answered = time.monotonic()
            response = result.get_response()
            version = int(response["model_version"] if isinstance(response, dict) else response.model_version)
            rows.append((sent, answered, version, tag_of(result.as_numpy(OUTPUT)), 0))
        except Exception as error:
            rows.append((sent, time.monotonic(), 0, 0, 1))
            print(f"{protocol}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if think_seconds:
            time.sleep(think_seconds)
    np.save(output, np.array(rows, np.float64).reshape(-1, 5))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5])
