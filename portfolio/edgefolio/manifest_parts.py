"""Records inside a manifest: signature, probe, measurements and one variant, each value within bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgefolio.records.base import Digest, Record, Segment
from edgefolio.records.measured import Profile
from edgefolio.records.split_member import SplitMember
from edgefolio.untrusted.json_document import (
    BatchSize,
    Count,
    Document,
    FreeText,
    Line,
    Magnitude,
    Milliseconds,
    Percent,
    Positive,
)

#: Triton version of a variant = revision * VERSIONS_PER_REVISION + rank, so that ranks of revisions never meet.
VERSIONS_PER_REVISION = 100
#: Numbers of revisions end here; versions made of them stay within 32 bits.
LARGEST_REVISION = 2**24
#: A probe repeated to the users' batch is computed at each load: 1 GiB of float32.
LARGEST_BATCH_VALUES = 2**28
_LARGEST_SIZE = 2**24
#: Classes are listed one by one up to this number.
MOST_LISTED_CLASSES = 1000
#: The largest number of each type of floats.
_FLOATS = {
    "FP16": 65504.0,
    "BF16": 3.3895313892515355e38,
    "FP32": 3.4028234663852886e38,
    "FP64": 1.7976931348623157e308,
}
_RANGES: dict[str, tuple[float, float]] = {
    "BOOL": (0, 1),
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{name: (-largest, largest) for name, largest in _FLOATS.items()},
}

RevisionNumber = Annotated[int, Field(ge=1, le=LARGEST_REVISION)]
TensorName = Annotated[Line, Field(min_length=1, max_length=253)]
Factor = Annotated[float, Field(ge=-1e30, le=1e30)]


class TensorSignature(Record):
    """Name, element type (KServe v2 names: FP32, INT64, ...) and shape without the batch axis; -1 is dynamic."""

    name: TensorName
    datatype: Annotated[str, Field(pattern=r"^(BOOL|U?INT(8|16|32|64)|FP(16|32|64)|BF16)$")]
    shape: Annotated[tuple[Annotated[int, Field(ge=-1, le=_LARGEST_SIZE)], ...], Field(max_length=8)]

    @model_validator(mode="after")
    def _is_of_a_size(self) -> TensorSignature:
        if math.prod(abs(size) for size in self.shape) > LARGEST_BATCH_VALUES:
            raise ValueError(f"tensor {self.name}: a sample has more than {LARGEST_BATCH_VALUES} values")
        return self


class Signature(Record):
    """Inputs and outputs that all variants of the portfolio share."""

    inputs: Annotated[tuple[TensorSignature, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[TensorSignature, ...], Field(min_length=1, max_length=16)]
    max_batch_size: BatchSize = 1024


class PictureReading(Record):
    """How a picture file became a raw sample. Each was turned as its EXIF orientation says, with transparency on black.

    The steps in order: decode, turn, put on black, bring to ``channels``, scale the shorter side to
    ``resized_shorter_side`` pixels (Pillow's filter ``interpolation``), cut out the middle ``centre_crop`` square; the
    last two are absent where pictures are taken at their own size.
    """

    channels: Literal["Grey", "RGB"]
    values: Literal["UInt8", "UInt16", "Float32"] = "UInt8"
    orientation: Literal["Exif"] = "Exif"
    transparency: Literal["OnBlack"] = "OnBlack"
    resized_shorter_side: Positive | None = None
    interpolation: Literal["Nearest", "Bilinear", "Bicubic", "Lanczos", "Box", "Hamming"] | None = None
    centre_crop: Positive | None = None


class Preprocessing(Record):
    """What was done to raw samples before the model: value * scale, then (value - mean) / std per channel.

    ``pictures`` says how raw samples came from picture files, where they did.
    """

    scale: Factor = 1.0
    mean: Annotated[tuple[Factor, ...], Field(max_length=4096)] = ()
    std: Annotated[tuple[Factor, ...], Field(max_length=4096)] = ()
    layout: Literal["NCHW"] = "NCHW"
    # Left out where it is absent, so that these manifests are as they were.
    pictures: Annotated[PictureReading | None, Field(exclude_if=lambda value: value is None)] = None


class Accuracy(Record):
    """Top-1 accuracy in percent with its 95 % interval (Wilson) and the number of samples.

    With a :class:`ScoreDescription` in the manifest it is that score in percent.
    """

    percent: Percent
    low_percent: Percent
    high_percent: Percent
    samples: Positive

    @classmethod
    def from_counts(cls, *, correct: int, samples: int) -> Accuracy:
        """Wilson score interval at 95 % for ``correct`` out of ``samples``."""
        z = 1.959963984540054
        share = correct / samples
        centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
        half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
        percent = 100 * share
        # At 0 and 100 % an end of the interval is the share itself, and rounding would put it on its wrong side.
        return cls(
            percent=percent,
            low_percent=min(percent, 100 * max(0.0, centre - half)),
            high_percent=max(percent, 100 * min(1.0, centre + half)),
            samples=samples,
        )


class ScoreDescription(Record):
    """What a manifest's accuracies are, where they are not top-1 accuracy of a classifier.

    ``unit`` PercentOfDense: the metric has a unit of its own, and a variant's accuracy is its score in percent of the
    dense model's (of errors the inverse ratio), at most 100. ``better`` is the direction of the metric's own unit.
    """

    task: Literal["Classification", "MultiLabel", "Regression", "Segmentation", "Custom"]
    metric: Annotated[Line, Field(min_length=1, max_length=253)]
    word: Annotated[Line, Field(min_length=1, max_length=40)]
    better: Literal["Higher", "Lower"]
    unit: Literal["Percent", "PercentOfDense"]


class ScoreFigures(Record):
    """A score in the metric's own unit, with its 95 % interval."""

    value: Factor
    low: Factor
    high: Factor


class ClassFigures(Record):
    """How well each class is recognized: its recall, the share of its samples that are given its label.

    ``recall_percents`` are in the order of the manifest's labels, ``None`` for a class without samples; of more than
    :data:`MOST_LISTED_CLASSES` classes none is listed. Balanced accuracy is the mean of all recalls.
    """

    balanced_accuracy_percent: Percent
    lowest_recall_percent: Percent
    lowest_class: Count
    recall_percents: Annotated[tuple[Percent | None, ...], Field(max_length=MOST_LISTED_CLASSES)] = ()

    @classmethod
    def from_counts(cls, *, correct: Sequence[int], samples: Sequence[int]) -> ClassFigures:
        """The figures of ``correct`` out of ``samples``, both by class; one class at least has samples."""
        recalls = [100 * right / count if count else None for right, count in zip(correct, samples, strict=True)]
        known = [(recall, number) for number, recall in enumerate(recalls) if recall is not None]
        lowest, number = min(known)
        return cls(
            balanced_accuracy_percent=min(100.0, math.fsum(recall for recall, _ in known) / len(known)),
            lowest_recall_percent=lowest,
            lowest_class=number,
            recall_percents=tuple(recalls) if len(recalls) <= MOST_LISTED_CLASSES else (),
        )


class ClassSamples(Record):
    """Samples of each class in the three parts, in the order of the manifest's labels."""

    training: Annotated[tuple[Count, ...], Field(max_length=MOST_LISTED_CLASSES)]
    validation: Annotated[tuple[Count, ...], Field(max_length=MOST_LISTED_CLASSES)]
    test: Annotated[tuple[Count, ...], Field(max_length=MOST_LISTED_CLASSES)]


class ParityProof(Record):
    """How the published ONNX compares on validation samples: with the torch model it came from, or, if it is quantized,

    with its float parent's file.
    """

    max_absolute_difference: Magnitude
    max_absolute_logit: Magnitude
    top1_agreement_percent: Percent
    samples: Positive


class ExactnessProof(Record):
    """How the spatially pruned model compares with its sparse parent: float64 (relative) and fp32 (absolute)."""

    float64_relative_difference: Magnitude
    float32_absolute_difference: Magnitude
    float32_bound: Magnitude


class Tensor(Record):
    """A small tensor in full: shape (with the batch axis) and values in row-major order."""

    name: TensorName
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=_LARGEST_SIZE)], ...], Field(min_length=1, max_length=9)]
    values: Annotated[tuple[float, ...], Field(max_length=2**22)]

    @model_validator(mode="after")
    def _values_fill_the_shape(self) -> Tensor:
        if math.prod(self.shape) != len(self.values):
            raise ValueError(f"tensor {self.name}: {len(self.values)} values do not fill shape {self.shape}")
        return self


class Probe(Record):
    """Inputs with the outputs that this variant must give within the tolerance, never bit by bit:

    the same file gives different bits on another CPU or optimization level.
    """

    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=16)]
    absolute_tolerance: Annotated[float, Field(gt=0, le=1e30)]


class FloatLayer(Record):
    """A layer of a quantized variant that stays float: what quantizing it alone changes in the model's answers,

    as a part of their variance over the calibration samples.
    """

    name: Line
    residual: Magnitude


class QuantizationRecord(Record):
    """How a variant was quantized. How far it is from ``float_parent`` stands in the variant's ``parity``.

    Of a split the float parent is the same plan with shards in float32, ``<name>-float32``, which is not published.
    """

    float_parent: Segment
    calibration_samples: Positive
    accuracy_loss_points: Annotated[float, Field(ge=-100, le=100)]
    max_accuracy_loss_points: Magnitude
    int8_layers: Count
    float_layers: Annotated[tuple[FloatLayer, ...], Field(max_length=10_000)] = ()
    equalized: bool = False


class LayerKept(Record):
    """Channels of one layer before and after."""

    name: Line
    before: Count
    after: Count


class Variant(Record):
    """One deployable model of the portfolio: an ONNX file, or the plan of a split with the files of its shards beside.

    ``rank`` 1 is the least accurate on validation. ``sha256`` and ``size_bytes`` are those of ``file``; a plan holds
    those of its shards. The profile of a split is the slowest worker's latency, without a network, and the largest's
    memory.
    """

    name: Segment
    rank: Annotated[int, Field(ge=1, lt=VERSIONS_PER_REVISION)]
    file: Annotated[str, Field(pattern=r"^[0-9]{1,12}/(model\.onnx|plan\.json)$")]
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1, le=2**31 - 1)]
    parent: Line | None
    method: Annotated[Line, Field(min_length=1, max_length=253)]
    settings: Document = {}
    opset: Count
    ir_version: Count
    parameters: Count
    macs: Count
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    #: Left out of manifests from before it was measured, so that their bytes stay.
    test_classes: Annotated[ClassFigures | None, Field(exclude_if=lambda value: value is None)] = None
    #: Where the metric has a unit of its own.
    validation_score: Annotated[ScoreFigures | None, Field(exclude_if=lambda value: value is None)] = None
    test_score: Annotated[ScoreFigures | None, Field(exclude_if=lambda value: value is None)] = None
    parity: ParityProof
    exactness: ExactnessProof | None
    layers: Annotated[tuple[LayerKept, ...], Field(max_length=10_000)] = ()
    # Left out of float variants: readers from before these fields refuse manifests that have them, and only those.
    precision: Annotated[Literal["Float32", "Int8"], Field(exclude_if=lambda value: value == "Float32")] = "Float32"
    quantization: Annotated[QuantizationRecord | None, Field(exclude_if=lambda value: value is None)] = None
    #: Only in manifests of version 2.
    split: Annotated[SplitMember | None, Field(exclude_if=lambda value: value is None)] = None
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1, max_length=32)]
    probe: Probe

    @property
    def file_name(self) -> str:
        """The name of its file in the folder of its version."""
        return "model.onnx" if self.split is None else "plan.json"

    @property
    def stored_bytes(self) -> int:
        """All of its files together."""
        return self.size_bytes + (0 if self.split is None else self.split.stored_bytes)

    @model_validator(mode="after")
    def _quantized_ones_say_how(self) -> Variant:
        if (self.precision == "Int8") != (self.quantization is not None):
            raise ValueError(f"variant {self.name}: precision Int8 and quantization belong together")
        return self


class RejectedCandidate(Record):
    """A candidate that did not become a variant, and why."""

    name: Line
    reason: Annotated[FreeText, Field(max_length=500)]
    validation_accuracy_percent: Percent | None = None
    p50_milliseconds: Milliseconds | None = None
    p95_milliseconds: Milliseconds | None = None


class DataDigests(Record):
    """What the model was made from: URIs and digests of the three disjoint parts, with their sizes."""

    training_uri: FreeText
    training_sha256: Digest
    validation_sha256: Digest
    test_sha256: Digest
    training_samples: Count
    validation_samples: Count
    test_samples: Count


def fits(values: tuple[float, ...], datatype: str) -> bool:
    """Whether the numbers fit this element type; a cast would turn others into something else."""
    lowest, highest = _RANGES[datatype]
    return all(lowest <= value <= highest for value in values) and (
        datatype in _FLOATS or all(value == int(value) for value in values)
    )
