"""One closed-loop client of a worker, in a process of its own: a line for each request.

    python -m demo.split.client 127.0.0.1:8001 LINES ANSWERS.npz --model MODEL --input IMAGE --output LOGITS

Each line holds two times of the monotonic clock, which all processes of a machine share, and the name of whoever
answered: the split, a variant, ``wrong`` for an answer that is nobody's to that input, ``failed`` for none.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from demo.split.requests import FAILED, WRONG
from edgefolio_edge.triton.client import ControlError, TritonControl

#: A worker says how it is once a second.
_SAID_SECONDS = 2.5
#: Until then, on a machine so busy that it says so later.
_LONGEST_SECONDS = 20.0
#: After a request that failed at once: a server that is gone is not asked thousands of times a second.
_AFTER_FAILURE_SECONDS = 0.05


def who(found: NDArray[Any], expected: Mapping[str, NDArray[Any]], *, tolerance: float) -> str:
    """The name whose answer ``found`` is within ``tolerance``, or ``wrong``."""
    if not np.isfinite(found).all():
        return WRONG
    alike = {name: answer for name, answer in expected.items() if answer.shape == found.shape}
    distances = {name: float(np.abs(found - answer).max()) for name, answer in alike.items()}
    nearest = min(distances, key=lambda name: distances[name], default=WRONG)
    return nearest if distances.get(nearest, np.inf) <= tolerance else WRONG


def counted(text: str) -> dict[str, int]:
    """Requests by who answered them, as the worker's metrics say."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "edgefolio_split_requests_total":
                found[sample.labels["answerer"]] += int(sample.value)
    return dict(found)


def _scraped(address: str, *, at_least: int = 0) -> dict[str, int]:
    """What the metrics say once the worker has spoken: of so many requests, unless it does not come to that."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        time.sleep(_SAID_SECONDS)
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            found = counted(answer.read().decode())
        if sum(found.values()) >= at_least or time.monotonic() > deadline:
            return found


def main() -> None:
    """Ask until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("endpoint")
    parser.add_argument("lines", type=Path)
    parser.add_argument("answers", type=Path, help="`input` [requests, batch, ...], and the right answers by name")
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--tolerance", type=float, required=True, help="answers of one variant differ by less")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between an answer and the next request")
    parser.add_argument("--metrics", help="address of the worker's metrics")
    parser.add_argument("--counts", type=Path, help="what they say before and after, as JSON")
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with np.load(options.answers) as known:
        inputs = known["input"]
        expected = {name: known[name] for name in known.files if name != "input"}
    before = {} if options.metrics is None else _scraped(options.metrics)
    control = TritonControl(options.endpoint)
    number = 0
    with options.lines.open("w", buffering=1) as out:
        while not stop.is_set():
            place = number % len(inputs)
            number += 1
            sent = time.monotonic()
            try:
                found = control.infer(options.model, {options.input: inputs[place]}, seconds=30).outputs[options.output]
            except ControlError:
                out.write(f"{sent:.6f} {time.monotonic():.6f} {FAILED}\n")
                stop.wait(_AFTER_FAILURE_SECONDS)
                continue
            answered = time.monotonic()
            right = {name: answers[place] for name, answers in expected.items()}
            out.write(f"{sent:.6f} {answered:.6f} {who(found, right, tolerance=options.tolerance)}\n")
            if options.pause:
                stop.wait(options.pause)
    if options.counts is not None and options.metrics is not None:
        after = _scraped(options.metrics, at_least=sum(before.values()) + number)
        options.counts.write_text(json.dumps({"before": before, "after": after}))


if __name__ == "__main__":
    main()
