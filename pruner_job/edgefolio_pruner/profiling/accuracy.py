"""Accuracy of a variant, in all and by class, measured on its ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import Accuracy, ClassFigures
from edgefolio_pruner.profiling.session import open_session
from edgefolio_pruner.progress import Progress, no_progress

#: Size of batches where the answers do not depend on it.
FAST_BATCH = 256


class Samples(Protocol):
    """Samples ``[N, ...]`` as float32, read slice by slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Accuracy of one variant on one part of the data."""

    accuracy: Accuracy
    classes: ClassFigures


def measure(
    path: Path,
    images: Samples,
    labels: npt.NDArray[np.int64],
    *,
    classes: int,
    threads: int,
    batch: int = FAST_BATCH,
    stage: str = "accuracy",
    progress: Progress = no_progress,
) -> Measured:
    """Top-1 accuracy on ``images`` [N, C, H, W] and ``labels`` [N] in 0..classes-1, in batches of ``batch``.

    A sample with a NaN among its logits is wrong.
    """
    session = open_session(path, threads=threads)
    name = session.get_inputs()[0].name
    right = np.zeros(len(images), dtype=bool)
    for start in range(0, len(images), batch):
        progress(stage=stage, fraction=start / len(images), message=f"{start} of {len(images)} samples")
        logits = session.run(None, {name: images[start : start + batch]})[0]
        wanted = labels[start : start + batch]
        right[start : start + batch] = (np.argmax(logits, axis=1) == wanted) & np.isfinite(logits).all(axis=1)
    return Measured(
        accuracy=Accuracy.from_counts(correct=int(right.sum()), samples=len(images)),
        classes=ClassFigures.from_counts(
            correct=np.bincount(labels[right], minlength=classes).tolist(),
            samples=np.bincount(labels, minlength=classes).tolist(),
        ),
    )


def measure_accuracy(
    path: Path,
    images: Samples,
    labels: npt.NDArray[np.int64],
    *,
    threads: int,
    stage: str = "accuracy",
    progress: Progress = no_progress,
) -> Accuracy:
    """Top-1 accuracy alone, as :func:`measure` gives it."""
    classes = int(labels.max()) + 1
    return measure(path, images, labels, classes=classes, threads=threads, stage=stage, progress=progress).accuracy
