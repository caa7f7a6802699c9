"""Samples at which rounding decides least: what a quantized segment's probe is made of, and how wide it has to be.

What little float operators differ on another processor can move a value over the edge between two of its steps. A map
has thousands of values, so a step here or there is allowed for, as it was found: never more than twice that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgefolio.records.split_plan import PlannedSegment
from edgefolio_split.executor import Arrays, open_segment

__all__ = ["Steady", "steadiest"]

_SHAKES = 4
#: More than a hundred times what float operators differ on other processors (1e-7 to 1e-6).
_SHAKE = np.float32(1e-4)
_MARGIN = 2
#: Samples by the numbers that one takes in the probe's file.
_SAMPLES = ((1 << 14, 4), (1 << 17, 2))


@dataclass(frozen=True)
class Steady:
    """Places of the samples, what part of a float tensor's largest value they need, and how many levels of bytes."""

    rows: npt.NDArray[np.intp]
    relative_tolerance: float
    levels: int


def steadiest(content: bytes, segment: PlannedSegment, inputs: Arrays, outputs: Arrays) -> Steady:
    """The steadiest of the samples [N, ...] that a segment was given and answered, 4, 2 or 1 by their size.

    Judged by its inputs shaken, and by all operators computed as they stand, in float.
    """
    session, literal = (
        open_segment(content, sha256=segment.sha256, location=segment.file, literal=literal)
        for literal in (False, True)
    )
    names = list(outputs)
    generator = np.random.default_rng(0)
    others = [dict(zip(names, literal.run(names, inputs), strict=True))]
    for _ in range(_SHAKES):
        shaken = {
            name: array * (1 + _SHAKE * generator.uniform(-1, 1, array.shape).astype(np.float32))
            if array.dtype == np.float32
            else array
            for name, array in inputs.items()
        }
        others.append(dict(zip(names, session.run(names, shaken), strict=True)))
    count = len(next(iter(outputs.values())))
    relative, levels = np.zeros(count), np.zeros(count)
    for name, wanted in outputs.items():
        moved = np.max([_largest(wanted.astype(np.float64) - other[name]) for other in others], axis=0)
        if wanted.dtype == np.uint8:
            levels = np.maximum(levels, moved)
        else:
            relative = np.maximum(relative, moved / np.maximum(_largest(wanted), 1e-30))
    size = sum(array.size for array in (*inputs.values(), *outputs.values())) // max(1, count)
    most = next((samples for largest, samples in _SAMPLES if size <= largest), 1)
    # A thousandth weighs as much as a level of the wire.
    rows = np.sort(np.argsort(np.maximum(relative * 1e3, levels), kind="stable")[:most])
    moved, stepped = float(relative[rows].max()), int(levels[rows].max())
    return Steady(
        rows=rows,
        relative_tolerance=min(1.0, _MARGIN * moved),
        levels=min(255, _MARGIN * stepped if stepped > 1 else 1),
    )


def _largest(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The largest of each sample."""
    found: npt.NDArray[np.float64] = np.abs(values.astype(np.float64)).reshape(len(values), -1).max(axis=1)
    return found
