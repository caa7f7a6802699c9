"""Probe of a variant: a few real samples and their expected outputs, checked at every load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import Probe, Tensor
from edgefolio_pruner.profiling.session import open_session

#: Outputs may differ by this part of the largest one: far above what another processor or optimization level changes
#: (about 1e-5), far below the distance between two variants.
RELATIVE_TOLERANCE = 1e-3
_SMALLEST_TOLERANCE = 1e-5
#: Samples by the number of values of one: a manifest holds them as text, for every variant.
_SAMPLES = ((1 << 10, 4), (1 << 14, 2))


def probe_samples(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The first samples of ``images`` [N, ...], 4, 2 or 1 by their size, rounded to two decimals."""
    values = int(np.prod(images.shape[1:]))
    count = next((count for most, count in _SAMPLES if values <= most), 1)
    return np.round(images[:count].astype(np.float64), 2).astype(np.float32)


def make_probe(
    path: Path, samples: npt.NDArray[np.float32], *, input_name: str, output_names: tuple[str, ...], threads: int
) -> Probe:
    """The probe of the ONNX file at ``path``: ``samples`` and what the runtime gives for them."""
    outputs = open_session(path, threads=threads).run(list(output_names), {input_name: samples})
    largest = max(float(np.abs(output).max()) for output in outputs)
    return Probe(
        inputs=(_tensor(input_name, samples, decimals=2),),
        outputs=tuple(_tensor(name, output, decimals=6) for name, output in zip(output_names, outputs, strict=True)),
        absolute_tolerance=max(_SMALLEST_TOLERANCE, RELATIVE_TOLERANCE * largest),
    )


def _tensor(name: str, array: npt.NDArray[np.float32], *, decimals: int) -> Tensor:
    # Rounded in float64 for short text; the runtime computed with its nearest float32.
    values = np.round(array.astype(np.float64), decimals).ravel()
    return Tensor(name=name, shape=array.shape, values=tuple(float(value) for value in values))
