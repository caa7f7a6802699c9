"""Fashion-MNIST as the benchmark uses it: a part of the training images, drawn by the seed."""

from __future__ import annotations

from benchmarks.over_seeds import shortened

from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.data.loading import load_data

SPECIFICATION = DataSpecification(training_uri="builtin:fashion-mnist")
#: Of the 54,000 that are left after validation: what one core trains fifteen networks with in hours, not in days.
TRAINING_SAMPLES = 6_000
CALIBRATION_SAMPLES = 512


def data_of(seed: int) -> DataBundle:
    """The data of ``seed``: 6,000 training, 6,000 validation and all 10,000 test images."""
    return shortened(load_data(SPECIFICATION, seed=seed), TRAINING_SAMPLES, seed=seed)
