"""Top-1 accuracy of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import Accuracy
from edgefolio_pruner.profiling.session import open_session
from edgefolio_pruner.progress import Progress, no_progress

_BATCH = 256


class Samples(Protocol):
    """Samples ``[N, ...]`` as float32, read slice by slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> Any: ...


def measure_accuracy(
    path: Path,
    images: Samples,
    labels: npt.NDArray[np.int64],
    *,
    threads: int,
    stage: str = "accuracy",
    progress: Progress = no_progress,
) -> Accuracy:
    """Top-1 accuracy on ``images`` [N, C, H, W] and ``labels`` [N]; a sample with a NaN among its logits is wrong."""
    session = open_session(path, threads=threads)
    name = session.get_inputs()[0].name
    correct = 0
    for start in range(0, len(images), _BATCH):
        progress(stage=stage, fraction=start / len(images), message=f"{start} of {len(images)} samples")
        logits = session.run(None, {name: images[start : start + _BATCH]})[0]
        right = np.argmax(logits, axis=1) == labels[start : start + _BATCH]
        correct += int((right & np.isfinite(logits).all(axis=1)).sum())
    return Accuracy.from_counts(correct=correct, samples=len(images))
