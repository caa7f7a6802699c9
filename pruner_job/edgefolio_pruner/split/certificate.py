"""Certificate of a split: its outputs beside the dense model's on held-out samples, without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefolio.records.split_plan import Certificate

__all__ = ["certify"]

Floats = NDArray[np.float32]


def certify(dense: Floats, split: Floats) -> Certificate:
    """Both are outputs [samples, classes]. The error is a part of the variance of the dense outputs.

    A sample is certified if the margin between the dense model's two largest outputs is more than twice the sample's
    largest error: then no change of that size can change its class.
    """
    dense64 = dense.reshape(len(dense), -1).astype(np.float64)
    split64 = split.reshape(len(split), -1).astype(np.float64)
    difference = split64 - dense64
    variance = float(((dense64 - dense64.mean(0)) ** 2).sum())
    error = float((difference**2).sum())
    if dense64.shape[1] > 1:
        largest = np.sort(dense64, axis=1)
        margin = largest[:, -1] - largest[:, -2]
        certified = margin > 2 * np.abs(difference).max(1)
        agreement = dense64.argmax(1) == split64.argmax(1)
    else:
        certified = agreement = np.abs(difference).max(1) == 0
    return Certificate(
        relative_error=error / variance if variance > 0 else error,
        certified_percent=100 * float(certified.mean()),
        agreement_percent=100 * float(agreement.mean()),
        samples=len(dense),
    )
