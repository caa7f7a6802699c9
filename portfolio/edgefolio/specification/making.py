"""Models of a pruning run: source, data, methods and selection."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from edgefolio.specification.metric import CUSTOM_NEEDS_METRIC, METRIC_OF_TASK_RULE, TASK_RULES, Metric, Task, measures
from edgefolio.specification.splitting import Split, check_splits
from edgefolio.specification.validation.base import (
    DecimalString,
    NonNegativeDecimal,
    PercentDecimal,
    PositiveDecimal,
    Specification,
)
from edgefolio.specification.validation.cel import list_map, rules, without_default
from edgefolio.uris import SECRET_NAME

Uri = Annotated[str, Field(min_length=1, max_length=1024)]

_INTO_THE_SECRET = "put credentials into the Secret of repository.secretRef"
#: What no new URI may hold; :mod:`edgefolio.uris` says the same on one machine. Rules of the string itself: the
#: API server (1.30 and later) does not ask them of a stored value that stays as it is.
SAFE_URI_RULES = rules(
    (r"!self.matches(r'[\x00-\x1f\x7f]')", "it holds control characters"),
    (
        r"!self.contains('::') || self.matches(r'^[a-z0-9]+://\[[0-9A-Fa-f:.]+\](:?[^:])*$')",
        "it holds ::, and chains of places are not followed",
    ),
    (r"!self.matches(r'(^|/)(\.|%2[eE]){2}([/?#]|$)')", "its path holds .."),
    ("!self.matches('^[a-z0-9]+://[^/?#]*@')", f"it holds a user or a password: {_INTO_THE_SECRET}"),
    (
        f"!self.matches(r'[?&;#](?i:{SECRET_NAME})=')",
        f"a parameter of it is a credential or signature: {_INTO_THE_SECRET}",
    ),
)
#: A URI that a user writes.
GivenUri = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=SAFE_URI_RULES)]


def _number_as_text(value: Any) -> Any:
    # The resource holds no floats: 0.25 is kept as "0.25", and passed on as a number.
    if isinstance(value, float):
        if not Decimal(str(value)).is_finite():
            raise ValueError("must be a finite number")
        text = format(Decimal(str(value)), "f")
        return text if "." in text else f"{text}.0"
    return value


OptionScalar = Annotated[str | int | bool | None, BeforeValidator(_number_as_text)]
#: An argument of a network.
OptionValue = OptionScalar | Annotated[tuple[OptionScalar, ...], Field(max_length=64)]


def _no_file(library: object) -> object:
    if library == "onnx":
        raise ValueError("an ONNX file is named by source.modelURI, in place of architecture and weightsURI")
    return library


class Architecture(Specification):
    """A network by name: ``{library: timm, name: resnet18, options: {in_chans: 1, num_classes: 10}}``.

    ``library: factory`` calls ``name: module:callable`` with the options.
    """

    library: Annotated[Literal["timm", "torchvision", "edgefolio", "factory"], BeforeValidator(_no_file)]
    """Where the network is defined."""
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Its name there; for factory module:callable."""
    options: Annotated[dict[str, OptionValue], Field(max_length=32)] = {}
    """Keyword arguments it is built with: strings, numbers, booleans, and lists of these."""


MODEL_OR_ARCHITECTURE = "source needs either architecture or modelURI"
MODEL_HOLDS_WEIGHTS = "modelURI holds network and weights: leave out weightsURI"


class Source(Specification):
    """The model: an architecture and its trained weights (safetensors; without them it is trained), or an ONNX file."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.architecture) != has(self.modelURI)", MODEL_OR_ARCHITECTURE),
            ("!has(self.modelURI) || !has(self.weightsURI)", MODEL_HOLDS_WEIGHTS),
            (
                "!has(self.modelURI) || self.modelURI.matches('^(s3|https|pvc|hf)://.')",
                "modelURI must begin with s3://, https://, pvc:// or hf://",
            ),
            (
                "!has(self.weightsURI) || self.weightsURI.matches('^(s3|https|pvc|hf)://.')",
                "weightsURI must begin with s3://, https://, pvc:// or hf://",
            ),
        )
    )

    architecture: Architecture | None = None
    """The network by name; absent: modelURI holds it."""
    weights_uri: GivenUri | None = None
    """Trained weights (safetensors), hf://organization/model@commit of the Hugging Face Hub too; absent: it is trained
    from scratch."""
    model_uri: GivenUri | None = None
    """A trained model in one ONNX file, in place of architecture and weightsURI; on the Hugging Face Hub
    hf://organization/model@commit/model.onnx."""

    @property
    def is_trained(self) -> bool:
        """Whether trained weights are given."""
        return self.weights_uri is not None or self.model_uri is not None

    @model_validator(mode="after")
    def _one_form_of_a_model(self) -> Source:
        if (self.architecture is None) == (self.model_uri is None):
            raise ValueError(MODEL_OR_ARCHITECTURE)
        if self.model_uri is not None and self.weights_uri is not None:
            raise ValueError(MODEL_HOLDS_WEIGHTS)
        return self


_DEVIATION_RULE = "standardDeviation must be above 0 for every channel"
_CHANNELS_RULE = "standardDeviation and mean must have one number for each channel"


class Normalization(Specification):
    """What trained weights expect of their inputs: ``(value - mean) / standardDeviation``, channel by channel.

    Integer samples (and ``builtin:digits``) are brought to 0..1 first; floating samples of an ``.npz`` file are taken
    as they are. The mean of ImageNet, for example, is ``["0.485", "0.456", "0.406"]``.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.mean.size() == self.standardDeviation.size()", _CHANNELS_RULE),
            ("self.standardDeviation.all(d, double(d) > 0.0)", _DEVIATION_RULE),
        )
    )

    mean: Annotated[tuple[DecimalString, ...], Field(min_length=1, max_length=16)]
    """One number for each channel."""
    standard_deviation: Annotated[tuple[DecimalString, ...], Field(min_length=1, max_length=16)]
    """One number above 0 for each channel."""

    @model_validator(mode="after")
    def _one_of_each_for_every_channel(self) -> Normalization:
        if len(self.mean) != len(self.standard_deviation):
            raise ValueError(_CHANNELS_RULE)
        if any(Decimal(deviation) <= 0 for deviation in self.standard_deviation):
            raise ValueError(_DEVIATION_RULE)
        return self


#: A class of the data, as its folder or file calls it.
ClassName = Annotated[str, Field(min_length=1, max_length=63)]
#: An input of the network: its array in the file, and its name in requests.
InputName = Annotated[str, Field(min_length=1, max_length=63, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]


class DataSpecification(Specification):
    """Where samples come from: ``builtin:digits``, ``builtin:fashion-mnist``, an ImageFolder tree, a file, a factory.

    A file is ``.npz`` or ``.npy`` of NumPy, ``.csv`` (paths or numbers, and labels), ``.parquet`` or ``.arrow``, or
    ``.tar`` (WebDataset). ``factory:module:callable`` returns a ``Dataset`` of torch.

    Without ``validationURI`` a part of the training data is held out (``validationPercent``); without ``testURI`` a
    built-in set's own test part is used, for others a further part of the training data is held out (``testPercent``).
    The three are disjoint: selection looks at validation, the manifest reports test.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"!has(self.{field}) || self.{field}.matches('^(builtin:|factory:|(s3|https|pvc)://).')",
                    f"{field} must begin with builtin:, factory:, s3://, https:// or pvc://",
                )
                for field in ("trainingURI", "validationURI", "testURI")
            ),
            *TASK_RULES,
        )
    )

    training_uri: GivenUri
    """Samples to learn from."""
    validation_uri: GivenUri | None = None
    """Samples that selection looks at; absent: a part of the training data."""
    test_uri: GivenUri | None = None
    """Samples that the manifest reports; absent: a built-in set's own, or a part of the training data."""
    validation_percent: Annotated[int, Field(ge=1, le=50)] = 10
    """Part of the training data held out where validationURI is absent."""
    test_percent: Annotated[int, Field(ge=1, le=50)] = 10
    """Part of the training data held out where testURI is absent."""
    calibration_samples: Annotated[int, Field(ge=32, le=65536)] = 512
    """Unlabelled samples that the one-shot route looks at."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Height and width that pictures are scaled to; absent: as they are."""
    class_names: Annotated[tuple[ClassName, ...] | None, Field(min_length=2, max_length=1000)] = None
    """All classes in the order of the network's outputs, at most 1,000; absent: as the model names them, else
    ``classOrder``."""
    # Left out of a manifest where it is the default, whose digest is that of before.
    class_order: Annotated[Literal["Text", "Natural"], Field(exclude_if=lambda value: value == "Text")] = "Text"
    """Order of class names where it is not given: as text (1, 10, 2), or natural (1, 2, 10)."""
    normalization: Annotated[Normalization | None, Field(exclude_if=lambda value: value is None)] = None
    """Give it with weights that were trained elsewhere; absent: mean and deviation of the training data."""
    inputs: Annotated[
        tuple[InputName, ...] | None, Field(min_length=2, max_length=16, exclude_if=lambda value: value is None)
    ] = None
    """Inputs of a network that takes several, in the order of its arguments: arrays of these names in an ``.npz`` file,
    fed as they are; absent: one input."""

    # Both are left out of a manifest where they are the default.
    task: Annotated[Task, Field(exclude_if=lambda value: value == "Classification")] = "Classification"
    """What the network is for. Only Classification can be trained here; the other tasks need trained weights."""
    metric: Annotated[Metric | None, Field(exclude_if=lambda value: value is None)] = None
    """The score of a variant; absent: top-1 accuracy of Classification, F1 of MultiLabel, mean absolute error of
    Regression, mean intersection over union of Segmentation."""

    @model_validator(mode="after")
    def _metric_is_one_of_the_task(self) -> DataSpecification:
        if not measures(self.task, self.metric):
            raise ValueError(CUSTOM_NEEDS_METRIC if self.metric is None else METRIC_OF_TASK_RULE)
        return self

    @model_validator(mode="after")
    def _inputs_differ(self) -> DataSpecification:
        if self.inputs is not None and len({name.lower() for name in self.inputs}) != len(self.inputs):
            raise ValueError("inputs holds a name twice")
        return self

    @model_validator(mode="after")
    def _class_names_differ(self) -> DataSpecification:
        if self.class_names is not None and len(set(self.class_names)) != len(self.class_names):
            raise ValueError("classNames holds a name twice")
        return self


class SparseTraining(Specification):
    """Iterative magnitude pruning (DNNShifter): train, drop the smallest weights, train on, level by level.

    ``sparsity: Magnitude`` ranks single weights over the whole network (the paper's scheme); ``Group`` also ranks whole
    channel groups, so that filters really become empty. ``prunePercent`` is the part of the *remaining* prunable
    weights that each level drops. ``rewindStep`` > 0 puts the surviving weights back to their value at that optimizer
    step before each level. With trained weights in ``source`` the dense training is skipped.
    """

    dense_epochs: Annotated[int, Field(ge=0, le=10000)] = 3
    """Epochs of the dense model; 0 with trained weights."""
    levels: Annotated[int, Field(ge=0, le=32)] = 3
    """Levels of sparsity, each a candidate."""
    epochs_per_level: Annotated[int, Field(ge=0, le=10000)] = 1
    """Epochs after each pruning."""
    prune_percent: Annotated[int, Field(ge=1, le=95)] = 40
    """Part of the remaining prunable weights that each level drops."""
    sparsity: Literal["Magnitude", "Group"] = "Group"
    """Magnitude ranks single weights; Group also whole channel groups."""
    rewind_step: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Optimizer step whose weights the survivors go back to; 0: no rewinding."""
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    """Optimizer."""
    learning_rate: PositiveDecimal = "0.1"
    """Peak learning rate of the dense training."""
    level_learning_rate: PositiveDecimal | None = None
    """Peak learning rate of the levels; absent: as for the dense training."""
    momentum: NonNegativeDecimal = "0.9"
    """Momentum of SGD."""
    weight_decay: NonNegativeDecimal = "0.0005"
    """Weight decay."""
    schedule: Literal["OneCycle", "Cosine", "Step", "Constant"] = "OneCycle"
    """How the learning rate moves."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 128
    """Samples per optimizer step."""
    augmentation: Literal["None", "Flip", "FlipCrop"] = "Flip"
    """What is done to training samples."""


_A_SHARE = "oneShot needs an entry in macsPercent or latencyPercent"


class OneShot(Specification):
    """Prune and refit a trained model on unlabelled samples, without training; one variant per entry.

    ``macsPercent`` is the part of the dense model's multiply-accumulates that a variant may keep, ``latencyPercent``
    that of its time on the machine of the Job, by a table of onnxruntime's times per layer and width that is measured
    first. An entry of it that makes the model no faster gives no variant. With ``distillationEpochs`` each variant then
    learns the dense model's answers.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.macsPercent) || size(self.macsPercent) > 0"
                " || (has(self.latencyPercent) && size(self.latencyPercent) > 0)",
                _A_SHARE,
            )
        )
    )

    macs_percent: Annotated[tuple[Annotated[int, Field(ge=5, le=99)], ...], Field(max_length=16)] = (75, 50, 35, 25)
    """Part of the dense model's multiply-accumulates that a variant may keep; one variant each. ``[]`` with
    latencyPercent alone."""
    latency_percent: Annotated[
        tuple[Annotated[int, Field(ge=5, le=95)], ...],
        Field(max_length=16, exclude_if=lambda value: not value, json_schema_extra=without_default),
    ] = ()
    """Part of the dense model's time that a variant may keep; one variant each."""
    distillation_epochs: Annotated[
        int, Field(ge=0, le=1000, exclude_if=lambda value: not value, json_schema_extra=without_default)
    ] = 0
    """Epochs in which each variant learns the dense model's answers on training samples, without labels; 0: none."""

    @model_validator(mode="after")
    def _a_share_is_given(self) -> OneShot:
        if not self.macs_percent and not self.latency_percent:
            raise ValueError(_A_SHARE)
        return self


class Quantization(Specification):
    """A quantized twin of every candidate, dense, sparse or one-shot, called ``<candidate>-int8``.

    Weights and activations are bytes, with ranges from unlabelled training samples. Layers whose quantization changes
    the model's answers most stay float, until a twin's validation accuracy is within ``maxAccuracyLossPoints`` of its
    float parent's. A twin that loses more whatever stays float, or is slower than its parent on the machine that
    makes it, is not published; the manifest says so.
    """

    precision: Literal["Int8"]
    """Int8: 8-bit integers, weights of 7 bits of them (for processors without VNNI)."""
    calibration_samples: Annotated[int, Field(ge=32, le=65536)] = 512
    """Unlabelled training samples that give the ranges."""
    max_accuracy_loss_points: NonNegativeDecimal = "0.3"
    """Most that a twin may lose against its float parent, in points of validation accuracy."""


def _form(value: Any) -> str:
    return "Disabled" if isinstance(value, str) else "Quantization"


class Methods(Specification):
    """The routes to variants; at least one. The dense model is always a candidate."""

    sparse_training: SparseTraining | None = None
    """Train, prune, train on."""
    one_shot: OneShot | None = None
    """Prune and refit without training."""
    quantization: Annotated[
        Annotated[Literal["Disabled"], Tag("Disabled")] | Annotated[Quantization, Tag("Quantization")],
        Discriminator(_form),
    ] = "Disabled"
    """Disabled, or how candidates are quantized: ``{precision: Int8}``."""
    # Left out where it is absent, so that manifests and keys of before are as they were.
    split: Annotated[
        tuple[Split, ...],
        Field(
            max_length=4,
            exclude_if=lambda value: not value,
            json_schema_extra={**list_map("name"), "default": None},
        ),
    ] = ()
    """The dense model over several nodes, one entry for each way to divide it; see docs/split.md."""

    @model_validator(mode="after")
    def _splits_go_together(self) -> Methods:
        check_splits(self.split, has_quantization=self.quantization != "Disabled")
        return self


#: Splits of a portfolio that says nothing of them.
MAX_SPLITS = 2


class Selection(Specification):
    """Which candidates become the portfolio: a Pareto front without ties, spread over the latencies.

    A candidate is dropped if another one is at least as good within ``accuracyEpsilonPoints`` and
    ``latencyEpsilonPercent`` and ``memoryEpsilonPercent``; or if another one is faster, takes no more memory, and the
    95 % intervals of their accuracies overlap (at most three times ``accuracyEpsilonPoints`` apart). Of more than
    ``maxVariants`` those are taken that leave the narrowest gaps in latency and lose the least accuracy in them.
    """

    max_variants: Annotated[int, Field(ge=1, le=16)] = 5
    """Most variants in the portfolio."""
    max_splits: Annotated[
        int, Field(ge=0, le=4, exclude_if=lambda value: value == MAX_SPLITS, json_schema_extra=without_default)
    ] = MAX_SPLITS
    """Most splits beside them, 2 where it is absent; they count apart and push no variant out."""
    max_accuracy_loss_points: NonNegativeDecimal | None = None
    """Largest loss against the dense model, in points of accuracy, or of the score in percent."""
    min_accuracy_percent: PercentDecimal | None = None
    """Smallest validation accuracy of a variant, or score in percent."""
    min_class_recall_percent: PercentDecimal | None = None
    """Smallest validation recall of a variant's weakest class: the share of its samples that are recognized."""
    accuracy_epsilon_points: NonNegativeDecimal = "0.3"
    """Smaller differences of accuracy make no difference."""
    latency_epsilon_percent: NonNegativeDecimal = "5"
    """Smaller differences of latency make no difference."""
    memory_epsilon_percent: NonNegativeDecimal = "5"
    """Smaller differences of memory make no difference."""
