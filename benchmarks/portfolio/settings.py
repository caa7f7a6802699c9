"""What is measured: networks, seeds and how they are made. A change here makes finished stages start over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgefolio.specification import DataSpecification, SparseTraining
from edgefolio.specification.making import Architecture


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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One benchmark over several seeds.

    ``training_samples`` images are drawn by the seed. ``macs_percents`` are the targets of the one-shot route.
    ``rounds`` are timed runs of each model per batch size, ``timed_steps`` optimizer steps per model, for the time that
    training it from scratch would take.
    """

    networks: tuple[Network, ...]
    training_samples: int
    sparse_training: SparseTraining
    macs_percents: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    data: DataSpecification = field(default_factory=lambda: DataSpecification(training_uri="builtin:fashion-mnist"))
    calibration_samples: int = 512
    rounds: Mapping[int, int] = field(default_factory=dict)
    timed_steps: int = 0
    threads: int = 1

    def fingerprint(self, network: Network, seed: int) -> dict[str, object]:
        """Everything that the result of one (network, seed) depends on, beside the machine and the code."""
        return {
            "architecture": network.specification().model_dump(mode="json"),
            "seed": seed,
            "data": self.data.model_dump(mode="json"),
            "trainingSamples": self.training_samples,
            "sparseTraining": self.sparse_training.model_dump(mode="json"),
            "macsPercents": list(self.macs_percents),
            "calibrationSamples": self.calibration_samples,
            "batchSizes": list(self.rounds),
            "threads": self.threads,
        }


PORTFOLIO = Settings(
    networks=(
        Network(name="ResNet-20", architecture="resnet20", width=8),
        Network(name="VGG-11", architecture="vgg11", width=16),
    ),
    # Three seeds of both networks fit into an hour of one busy core.
    training_samples=24_000,
    # Dense and four levels, each dropping 40 % of the weights that are left: five variants.
    sparse_training=SparseTraining(dense_epochs=3, levels=4, epochs_per_level=1, prune_percent=40, sparsity="Group"),
    # Dense and four targets: five variants.
    macs_percents=(75, 50, 35, 25),
    rounds={1: 150, 32: 40},
    timed_steps=15,
)
