"""One closed-loop client of a worker, in a process of its own: a line for each request.

    python -m benchmarks.split.split_load 127.0.0.1:8001 LINES

Each line holds two times of the monotonic clock, which all processes of a machine share, and the tag of whoever
answered: the split's, a variant's, ``wrong`` for an answer that is nobody's, ``failed`` for none.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.extend(str(ROOT / "tests" / folder) for folder in ("shared", "triton"))

from split_portfolios import tag_of  # noqa: E402
from triton_portfolios import MODEL  # noqa: E402

from edgefolio_edge.triton.client import ControlError, TritonControl  # noqa: E402

#: Answers of one variant differ by less: only rounding does.
TOLERANCE = 0.01


def main(endpoint: str, lines: str, answers: str) -> None:
    """Ask until the process is ended. ``answers`` is a file with the input and the right answers by tag."""
    with np.load(answers) as known:
        values = known["input"]
        expected = {int(name): known[name] for name in known.files if name != "input"}
    control = TritonControl(endpoint)
    with Path(lines).open("w", buffering=1) as out:
        while True:
            sent = time.monotonic()
            try:
                found = control.infer(MODEL, {"image": values}, seconds=30).outputs["logits"]
            except ControlError:
                out.write(f"{sent:.6f} {time.monotonic():.6f} failed\n")
                continue
            tag = tag_of(found) if np.isfinite(found).all() else -1
            is_right = tag in expected and np.allclose(found, expected[tag], rtol=0, atol=TOLERANCE)
            out.write(f"{sent:.6f} {time.monotonic():.6f} {tag if is_right else 'wrong'}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
