"""Raw samples, before splitting and normalising, and the validation of every reader's result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio_pruner.data.bundle import Labels

#: Splits by the name that files and folders use for them.
TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Samples ``[N, C, H, W]`` (uint8 or floating) with their labels ``[N]`` in 0..classes-1."""

    images: npt.NDArray[np.generic]
    labels: Labels

    def take(self, indices: npt.NDArray[np.int64]) -> RawSplit:
        """The samples at ``indices``."""
        return RawSplit(images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, eq=False)
class RawData:
    """Contents of one URI: ``train`` (or the only split), optionally validation and test.

    ``scale`` brings raw values into about 0..1.
    """

    parts: dict[str, RawSplit]
    class_names: tuple[str, ...]
    scale: float


def check_split(split: RawSplit, *, classes: int, field: str, name: str) -> None:
    """Raise :class:`UserError` for ``field`` unless ``split`` has samples, finite values and labels in 0..classes-1."""
    images, labels = split.images, split.labels
    if images.shape[0] == 0:
        raise UserError("there are no samples.", field=field, value=name, remedy="Name data that is not empty.")
    if images.shape[0] != labels.shape[0]:
        raise UserError(
            f"there are {images.shape[0]} samples but {labels.shape[0]} labels.",
            field=field,
            value=name,
            remedy="Give one label per sample.",
        )
    if images.dtype.kind == "f" and not _all_finite(images):
        raise UserError(
            "the samples hold values that are not finite (NaN or infinity).",
            field=field,
            value=name,
            remedy="Clean the data: every value must be finite.",
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise UserError(
            f"{outside.size} labels lie outside the classes 0..{classes - 1}, the first is {int(outside[0])}.",
            field=field,
            value=name,
            remedy="Number the classes from 0 without a gap, and name each of them.",
        )


def _all_finite(images: npt.NDArray[np.generic]) -> bool:
    # In slices: isfinite of a large set at once would need a quarter of its memory again.
    return all(bool(np.isfinite(images[start : start + 4096]).all()) for start in range(0, images.shape[0], 4096))
