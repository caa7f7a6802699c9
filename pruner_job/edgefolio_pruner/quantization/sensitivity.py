"""Which layers stay float: ranked by what quantizing each alone changes in the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

#: What a manifest can hold.
LARGEST = 1e30

Outputs = npt.NDArray[np.float64]


def outputs_of(content: bytes, samples: npt.NDArray[np.float32], *, threads: int, literal: bool = False) -> Outputs:
    """The first output of the model for ``samples``; ``literal`` computes each operator as it stands, unfused."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if literal:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: samples[start : start + 64]})[0] for start in range(0, len(samples), 64)]
    found: Outputs = np.concatenate(parts).astype(np.float64)
    return found


def residual(found: Outputs, wanted: Outputs) -> float:
    """Squared difference as a part of the squared deviation of ``wanted`` from its mean; at most :data:`LARGEST`."""
    if not np.isfinite(found).all():
        return LARGEST
    scale = float(((wanted - wanted.mean(axis=0)) ** 2).sum())
    return min(LARGEST, float(((found - wanted) ** 2).sum()) / max(scale, 1e-30))


def fewest_float_layers(ranked: Sequence[str], is_within: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...] | None:
    """The shortest beginning of ``ranked`` (most sensitive first) that ``is_within`` accepts, doubled then bisected.

    ``is_within`` has refused the empty one. ``None`` if it also refuses all of ``ranked``.
    """
    low, high = 0, 1
    while not is_within(tuple(ranked[:high])):
        if high >= len(ranked):
            return None
        low, high = high, min(2 * high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        if is_within(tuple(ranked[:middle])):
            high = middle
        else:
            low = middle
    return tuple(ranked[:high])
