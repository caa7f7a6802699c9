"""``builtin:digits``: the 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from edgefolio_pruner.data.raw import TRAIN, RawData, RawSplit


def read_digits() -> RawData:
    """One split of 1,797 samples ``[1, 8, 8]``, values 0..16, ten classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.asarray(digits.images, dtype=np.float32)[:, None]
    labels = np.asarray(digits.target, dtype=np.int64)
    return RawData(
        parts={TRAIN: RawSplit(images=images, labels=labels)},
        class_names=tuple(str(digit) for digit in range(10)),
        scale=1 / 16,
    )
