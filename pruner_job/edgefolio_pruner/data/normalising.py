"""Preprocessing: samples of one size, and the mean and deviation that they are normalised by."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgefolio.errors import UserError
from edgefolio.manifest import Preprocessing
from edgefolio.specification import Normalization
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.data.bundle import Images, Split, digest_of
from edgefolio_pruner.data.model_input import ModelInput
from edgefolio_pruner.data.raw import RawSplit
from edgefolio_pruner.data.stored import (
    VALUES_AT_ONCE,
    AnySamples,
    NormalisedSamples,
    SampleWriter,
    StoredSamples,
    slices,
)

#: Normalised samples of fewer bytes are held in memory; others are normalised whenever they are read.
_HELD_BYTES = 256 << 20
#: A near-constant channel is shifted but not scaled.
_SMALLEST_DEVIATION = 1e-3


def resized(split: RawSplit, size: int, *, field: str, name: str | None, scratch: Path | None) -> RawSplit:
    """All samples at ``size`` x ``size``, bilinear; whole numbers stay whole."""
    if split.images.shape[2:] == (size, size):
        return split
    if len(split.images.shape) != 4 or split.labels.ndim > 2:
        raise UserError(
            "only pictures with one answer each are scaled, not other samples, and no masks.",
            field="spec.data.imageSize",
            value=size,
            remedy="Leave data.imageSize out, and give samples as the network takes them.",
        )
    import torch

    samples, channels = split.images.shape[:2]
    integral = split.images.dtype.kind == "u"
    # A few small samples could else fill a disk.
    require_memory(
        samples * channels * size * size * (split.images.dtype.itemsize if integral else 4),
        what="this size",
        field=field,
        value=name,
    )
    writer = SampleWriter(
        samples,
        shape=(channels, size, size),
        dtype=split.images.dtype if integral else np.dtype(np.float32),
        folder=scratch,
        field=field,
        value=name,
    )
    step = min(1024, max(1, VALUES_AT_ONCE // (channels * max(size * size, math.prod(split.images.shape[2:])))))
    for start in range(0, samples, step):
        piece = torch.from_numpy(split.images[start : start + step].astype(np.float32))
        scaled = torch.nn.functional.interpolate(
            piece, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        ).numpy()
        writer.add(np.rint(scaled).clip(0, np.iinfo(split.images.dtype).max) if integral else scaled)
    return RawSplit(images=writer.samples(), labels=split.labels)


def own_preprocessing(split: RawSplit, scale: float) -> Preprocessing:
    """Mean and deviation of each channel of ``split``."""
    count, axes = 0, (0, *range(2, len(split.images.shape)))
    total = squares = np.zeros(split.images.shape[1])
    for raw in slices(split.images):
        piece = raw.astype(np.float64) * scale
        count += piece.size // piece.shape[1]
        total = total + piece.sum(axis=axes)
        squares = squares + (piece * piece).sum(axis=axes)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0))
    deviation = np.where(deviation < _SMALLEST_DEVIATION, 1.0, deviation)
    # Six digits are enough, and independent of each machine's summation order.
    return Preprocessing(
        scale=scale,
        mean=tuple(round(float(value), 6) for value in mean),
        std=tuple(round(float(value), 6) for value in deviation),
    )


def given_preprocessing(normalization: Normalization, scale: float, *, channels: int, field: str) -> Preprocessing:
    """The preprocessing that the user's weights were trained with."""
    if len(normalization.mean) not in (1, channels):
        raise UserError(
            f"it has {len(normalization.mean)} numbers, but the samples have {channels} "
            f"{'channel' if channels == 1 else 'channels'}.",
            field=f"{field}.normalization.mean",
            value=", ".join(normalization.mean),
            remedy="Give one number for each channel, or one for all, for mean and for standardDeviation.",
        )
    times = channels // len(normalization.mean)
    return Preprocessing(
        scale=scale,
        mean=tuple(float(value) for value in normalization.mean) * times,
        std=tuple(float(value) for value in normalization.standard_deviation) * times,
    )


def preprocessing_of_model(model: ModelInput, scale: float) -> Preprocessing:
    """Mean and deviation that the model brings."""
    assert model.mean is not None
    assert model.deviation is not None
    return Preprocessing(scale=scale, mean=model.mean, std=model.deviation)


def normalised(split: RawSplit, preprocessing: Preprocessing) -> Split:
    """The samples as the network takes them."""
    found = tuple(_normalised(given, preprocessing) for given in split.inputs)
    return Split(
        images=found[0],
        labels=split.labels,
        digest=digest_of(split.images, split.labels, split.others),
        others=found[1:],
    )


def _normalised(samples: AnySamples, preprocessing: Preprocessing) -> Images | StoredSamples:
    stored = NormalisedSamples(samples, preprocessing)
    small = math.prod(stored.shape) * stored.dtype.itemsize <= _HELD_BYTES
    return stored[:] if small else stored


def listed(values: tuple[float, ...]) -> str:
    """As people write them: ``0.485, 0.456``."""
    return ", ".join(f"{value:g}" for value in values)
