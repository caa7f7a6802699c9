"""Comparison of a quantized file with its float parent's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgefolio.manifest import ParityProof
from edgefolio_pruner.quantization.calibration import Samples
from edgefolio_pruner.quantization.sensitivity import outputs_of


def compare_files(parent: Path, twin: Path, samples: Samples, *, threads: int) -> ParityProof:
    """Largest difference and agreement of the largest entry between two files on ``samples``."""
    wanted = outputs_of(parent.read_bytes(), samples, threads=threads)
    found = outputs_of(twin.read_bytes(), samples, threads=threads)
    same = np.ones(1) if wanted.ndim < 2 else np.argmax(wanted, axis=1) == np.argmax(found, axis=1)
    return ParityProof(
        max_absolute_difference=float(np.abs(wanted - found).max()),
        max_absolute_logit=float(np.abs(wanted).max()),
        top1_agreement_percent=100 * float(same.mean()),
        samples=len(samples),
    )
