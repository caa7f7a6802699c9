"""Raw samples, before splitting and normalising, and the validation of every reader's result."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio.manifest import PictureReading
from edgefolio.shown_text import shown
from edgefolio_pruner.data.bundle import Labels
from edgefolio_pruner.data.stored import AnySamples, chosen, slices

#: Splits by the name that files and folders use for them.
TRAIN, VALIDATION, TEST = "train", "validation", "test"

#: What a manifest can record, and a network can have as outputs.
MOST_CLASSES, LONGEST_CLASS_NAME = 100_000, 253
_MOST_CHANNELS = 4096
_LARGEST_SAMPLE = 2**28
#: Squares of larger values leave float32's range, in which models compute.
_LARGEST_VALUE = 1e18


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Samples ``[N, C, H, W]`` (uint8, uint16 or floating) with their labels ``[N]`` in 0..classes-1.

    ``others`` are further inputs of the network for the same samples.
    """

    images: AnySamples
    labels: Labels
    others: tuple[AnySamples, ...] = ()

    @property
    def inputs(self) -> tuple[AnySamples, ...]:
        """All inputs of the network."""
        return (self.images, *self.others)

    def take(self, indices: npt.NDArray[np.int64]) -> RawSplit:
        """The samples at ``indices``."""
        return RawSplit(
            images=chosen(self.images, indices),
            labels=self.labels[indices],
            others=tuple(chosen(other, indices) for other in self.others),
        )


@dataclass(frozen=True, eq=False)
class RawData:
    """Contents of one URI: ``train`` (or the only split), optionally validation and test.

    ``scale`` brings raw values into about 0..1. ``has_names`` is false where the classes are only numbered, ``notes``
    is what is to be told of the reading, ``pictures`` what was done to picture files.
    """

    parts: dict[str, RawSplit]
    class_names: tuple[str, ...]
    scale: float
    has_names: bool = True
    notes: tuple[str, ...] = ()
    has_labels: bool = True
    pictures: PictureReading | None = None


def check_split(split: RawSplit, *, classes: int, field: str, name: str) -> None:
    """Raise :class:`UserError` for ``field`` unless ``split`` has samples, finite values and labels in 0..classes-1.

    With no classes the labels are targets of another kind, which their reader has checked.
    """
    images, labels = split.images, split.labels
    if images.shape[0] == 0:
        raise UserError("there are no samples.", field=field, value=name, remedy="Name data that is not empty.")
    if any(len(other) != len(images) for other in split.others):
        raise UserError(
            f"its inputs have {', '.join(str(len(given)) for given in split.inputs)} samples.",
            field=field,
            value=name,
            remedy="Give every input of data.inputs for every sample.",
        )
    if images.shape[0] != labels.shape[0]:
        raise UserError(
            f"there are {images.shape[0]} samples but {labels.shape[0]} labels.",
            field=field,
            value=name,
            remedy="Give one label per sample.",
        )
    for given in split.inputs:
        _check_samples(given, field=field, name=name)
    if not classes:
        return
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise UserError(
            f"{outside.size} labels lie outside the classes 0..{classes - 1}, the first is {int(outside[0])}.",
            field=field,
            value=name,
            remedy="Number the classes from 0 without a gap, and name each of them.",
        )


def _check_samples(images: AnySamples, *, field: str, name: str) -> None:
    if not 0 < math.prod(images.shape[1:]) <= _LARGEST_SAMPLE or images.shape[1] > _MOST_CHANNELS:
        raise UserError(
            f"a sample has the shape {'x'.join(str(side) for side in images.shape[1:])}.",
            field=field,
            value=name,
            remedy=f"Give samples of at most {_LARGEST_SAMPLE} values and {_MOST_CHANNELS} channels.",
        )
    if images.dtype.kind == "f" and not _all_usable(images):
        raise UserError(
            f"the samples hold values that are not finite (NaN or infinity), or larger than {_LARGEST_VALUE:g}.",
            field=field,
            value=name,
            remedy="Clean the data: every value must be finite.",
        )


def check_class_names(names: tuple[str, ...], *, field: str, name: str) -> None:
    """Raise :class:`UserError` for ``field`` unless the class names can be recorded and shown."""
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"there are {len(names)} classes.", field=field, value=name, remedy=f"Use at most {MOST_CLASSES}."
        )
    for text in names:
        if len(text) > LONGEST_CLASS_NAME or not text.isprintable():
            raise UserError(
                f"the class name {shown(text, limit=60)!r} is too long, or holds control characters.",
                field=field,
                value=name,
                remedy=f"Name each class on one line, with at most {LONGEST_CLASS_NAME} characters.",
            )


def _all_usable(images: AnySamples) -> bool:
    # NaN is not below.
    return all(bool((np.abs(piece) <= _LARGEST_VALUE).all()) for piece in slices(images))
