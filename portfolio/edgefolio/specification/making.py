"""How the variants are made: source, data, methods, selection and profiling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgefolio.specification.base import DecimalString, Specification

Uri = Annotated[str, Field(min_length=1, max_length=1024)]


class Architecture(Specification):
    """A network by name: ``{library: timm, name: resnet18, options: {in_chans: 1, num_classes: 10}}``.

    ``library: factory`` calls ``name: module:callable`` with the options.
    """

    library: Literal["timm", "torchvision", "edgefolio", "factory"]
    name: Annotated[str, Field(min_length=1, max_length=253)]
    options: Annotated[dict[str, str | int | bool | None], Field(max_length=32)] = {}


class Source(Specification):
    """The model: an architecture, and its trained weights (safetensors; without them it is trained)."""

    architecture: Architecture
    weights_uri: Uri | None = None


class DataSpecification(Specification):
    """Where samples come from: ``builtin:digits``, ``builtin:fashion-mnist``, an ImageFolder tree, an ``.npz`` file.

    Without ``validationURI`` a part of the training data is held out (``validationPercent``); without ``testURI`` a
    built-in set's own test part is used, for others a further part of the training data is held out (``testPercent``).
    The three are disjoint: selection looks at validation, the manifest reports test.
    """

    training_uri: Uri
    validation_uri: Uri | None = None
    test_uri: Uri | None = None
    validation_percent: Annotated[int, Field(ge=1, le=50)] = 10
    test_percent: Annotated[int, Field(ge=1, le=50)] = 10
    calibration_samples: Annotated[int, Field(ge=32, le=65536)] = 512
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None


class SparseTraining(Specification):
    """Iterative magnitude pruning (DNNShifter): train, drop the smallest weights, train on, level by level.

    ``sparsity: Magnitude`` ranks single weights over the whole network (the paper's scheme); ``Group`` also ranks whole
    channel groups, so that filters really become empty. ``prunePercent`` is the part of the *remaining* prunable
    weights that each level drops. ``rewindStep`` > 0 puts the surviving weights back to their value at that optimizer
    step before each level. With trained weights in ``source`` the dense training is skipped.
    """

    dense_epochs: Annotated[int, Field(ge=0, le=10000)] = 3
    levels: Annotated[int, Field(ge=0, le=32)] = 3
    epochs_per_level: Annotated[int, Field(ge=0, le=10000)] = 1
    prune_percent: Annotated[int, Field(ge=1, le=95)] = 40
    sparsity: Literal["Magnitude", "Group"] = "Group"
    rewind_step: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    learning_rate: DecimalString = "0.1"
    level_learning_rate: DecimalString | None = None
    momentum: DecimalString = "0.9"
    weight_decay: DecimalString = "0.0005"
    schedule: Literal["OneCycle", "Cosine", "Step", "Constant"] = "OneCycle"
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 128
    augmentation: Literal["None", "Flip", "FlipCrop"] = "Flip"


class OneShot(Specification):
    """Prune and refit a trained model on unlabelled samples, without training; one variant per entry.

    ``macsPercent`` is the part of the dense model's multiply-accumulates that a variant may keep.
    """

    macs_percent: Annotated[tuple[Annotated[int, Field(ge=5, le=99)], ...], Field(min_length=1, max_length=16)] = (
        75,
        50,
        35,
        25,
    )


class Methods(Specification):
    """The routes to variants; at least one. The dense model is always a candidate."""

    sparse_training: SparseTraining | None = None
    one_shot: OneShot | None = None
    quantization: Literal["Disabled"] = "Disabled"


class Selection(Specification):
    """Which candidates become the portfolio: a Pareto front thinned to what makes a difference.

    A candidate is dropped if another one is at least as good within ``accuracyEpsilonPoints`` and
    ``latencyEpsilonPercent`` and ``memoryEpsilonPercent``.
    """

    max_variants: Annotated[int, Field(ge=1, le=16)] = 5
    max_accuracy_loss_points: DecimalString | None = None
    min_accuracy_percent: DecimalString | None = None
    accuracy_epsilon_points: DecimalString = "0.3"
    latency_epsilon_percent: DecimalString = "5"
    memory_epsilon_percent: DecimalString = "5"


class Profiling(Specification):
    """How variants are measured: threads, batches (the last is the request batch) and samples per variant and batch."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=4)] = (1,)
    samples: Annotated[int, Field(ge=20, le=100_000)] = 200
    rounds: Annotated[int, Field(ge=2, le=100)] = 5

    @model_validator(mode="after")
    def _batches_are_distinct(self) -> Profiling:
        if len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError("batchSizes holds a number twice")
        return self
