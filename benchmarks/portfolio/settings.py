"""What is measured: networks, seeds and how they are made. A change here makes finished stages start over."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.specification import DataSpecification, SparseTraining
from edgefolio.specification.making import Architecture

DATA = DataSpecification(training_uri="builtin:fashion-mnist")
#: Training images used, drawn by the seed: three seeds of both networks fit into an hour of one busy core.
TRAINING_SAMPLES = 24_000
#: dense and four levels, each dropping 40 % of the weights that are left: five variants.
SPARSE_TRAINING = SparseTraining(dense_epochs=3, levels=4, epochs_per_level=1, prune_percent=40, sparsity="Group")
#: dense and four targets: five variants.
MACS_PERCENTS = (75, 50, 35, 25)
CALIBRATION_SAMPLES = 512
BATCH_SIZES = (1, 32)
#: Timed runs of each model per batch size, one of each model per round.
ROUNDS = {1: 150, 32: 40}
#: Optimizer steps timed per model, for the time that training it from scratch would take.
TIMED_STEPS = 15
THREADS = 1


@dataclass(frozen=True)
class Network:
    """A built-in architecture at a width that trains in minutes on one core."""

    name: str
    architecture: str
    width: int

    def specification(self) -> Architecture:
        """The architecture as the resource names it."""
        return Architecture(
            library="edgefolio",
            name=self.architecture,
            options={"width": self.width, "in_channels": 1, "num_classes": 10},
        )


NETWORKS = (
    Network(name="ResNet-20", architecture="resnet20", width=8),
    Network(name="VGG-11", architecture="vgg11", width=16),
)
SEEDS = (0, 1, 2)


def fingerprint(network: Network, seed: int) -> dict[str, object]:
    """Everything that the result of one (network, seed) depends on, beside the machine and the code."""
    return {
        "architecture": network.specification().model_dump(mode="json"),
        "seed": seed,
        "data": DATA.model_dump(mode="json"),
        "trainingSamples": TRAINING_SAMPLES,
        "sparseTraining": SPARSE_TRAINING.model_dump(mode="json"),
        "macsPercents": list(MACS_PERCENTS),
        "calibrationSamples": CALIBRATION_SAMPLES,
        "batchSizes": list(BATCH_SIZES),
        "threads": THREADS,
    }
