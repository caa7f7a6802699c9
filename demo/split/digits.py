"""The data set of `make demo-split`: scikit-learn's digits, each pixel six times as wide and as high."""

from __future__ import annotations

from typing import Any

import numpy
import numpy.typing

#: Of 8 x 8 pixels become 48 x 48.
ENLARGED = 6


def enlarged() -> tuple[numpy.typing.NDArray[numpy.uint8], numpy.typing.NDArray[Any]]:
    """1,797 pictures ``[N, 48, 48]`` of values 0 to 240, and their classes 0 to 9."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (15 * digits.images).astype(numpy.uint8)
    return pixels.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), digits.target
