"""Comparison of a quantized file with its float parent's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import ParityProof
from edgefolio_pruner.quantization.calibration import Samples
from edgefolio_pruner.quantization.sensitivity import outputs_of


def compare_files(parent: Path, twin: Path, samples: Samples, *, threads: int) -> ParityProof:
    """Largest difference and agreement of the largest entry between two files on ``samples``."""
    wanted = outputs_of(parent.read_bytes(), samples, threads=threads)
    found = outputs_of(twin.read_bytes(), samples, threads=threads)
    return compare_answers(wanted, found)


def compare_answers(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> ParityProof:
    """Largest difference of two answers to the same samples, and agreement of their largest entries."""
    same = np.ones(1) if wanted.ndim < 2 else np.argmax(wanted, axis=1) == np.argmax(found, axis=1)
    return ParityProof(
        max_absolute_difference=float(np.abs(wanted - found).max()),
        max_absolute_logit=float(np.abs(wanted).max()),
        top1_agreement_percent=100 * float(same.mean()),
        samples=len(wanted),
    )
