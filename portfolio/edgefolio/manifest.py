"""The manifest of one revision: everything a reader needs to verify, choose and serve its variants.

It is the contract between the room that makes variants and those that serve them. Its digest (sha256 over the bytes as
published) is the trust root and travels outside the repository; all other digests stand inside it. The JSON Schema is
published from these models. Floats are allowed here: a manifest is a record of measurements, no Kubernetes resource.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from edgefolio.errors import IntegrityError

SCHEMA_VERSION = "edgefolio.dev/manifest/v1"

#: Triton version of a variant = revision * VERSIONS_PER_REVISION + rank, so that ranks of revisions never meet.
VERSIONS_PER_REVISION = 100

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: One path segment; never a way out of its folder.
Segment = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", max_length=63)]


class Record(BaseModel):
    """Frozen, camelCase in JSON; unknown fields are refused, NaN and infinity too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class TensorSignature(Record):
    """Name, element type (KServe v2 names: FP32, INT64, ...) and shape without the batch axis; -1 is dynamic."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    datatype: Annotated[str, Field(pattern=r"^(BOOL|U?INT(8|16|32|64)|FP(16|32|64)|BF16)$")]
    shape: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], Field(max_length=8)]


class Signature(Record):
    """Inputs and outputs that all variants of the portfolio share."""

    inputs: Annotated[tuple[TensorSignature, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[TensorSignature, ...], Field(min_length=1, max_length=16)]
    max_batch_size: Annotated[int, Field(ge=1, le=65536)] = 1024


class Preprocessing(Record):
    """What was done to raw samples before the model: value * scale, then (value - mean) / std per channel."""

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["NCHW"] = "NCHW"


class Accuracy(Record):
    """Top-1 accuracy in percent with its 95 % interval (Wilson) and the number of samples."""

    percent: Annotated[float, Field(ge=0, le=100)]
    low_percent: Annotated[float, Field(ge=0, le=100)]
    high_percent: Annotated[float, Field(ge=0, le=100)]
    samples: Annotated[int, Field(ge=1)]

    @classmethod
    def from_counts(cls, *, correct: int, samples: int) -> Accuracy:
        """Wilson score interval at 95 % for ``correct`` out of ``samples``."""
        z = 1.959963984540054
        share = correct / samples
        centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
        half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
        return cls(
            percent=100 * share,
            low_percent=100 * max(0.0, centre - half),
            high_percent=100 * min(1.0, centre + half),
            samples=samples,
        )


class ParityProof(Record):
    """How the published ONNX compares with the torch model it came from, on validation samples."""

    max_absolute_difference: Annotated[float, Field(ge=0)]
    max_absolute_logit: Annotated[float, Field(ge=0)]
    top1_agreement_percent: Annotated[float, Field(ge=0, le=100)]
    samples: Annotated[int, Field(ge=1)]


class ExactnessProof(Record):
    """How the spatially pruned model compares with its sparse parent: float64 (relative) and fp32 (absolute)."""

    float64_relative_difference: Annotated[float, Field(ge=0)]
    float32_absolute_difference: Annotated[float, Field(ge=0)]
    float32_bound: Annotated[float, Field(ge=0)]


class LatencyProfile(Record):
    """Latency of one batch in milliseconds; p99 only from at least 1,000 samples."""

    batch_size: Annotated[int, Field(ge=1)]
    mean_milliseconds: Annotated[float, Field(gt=0)]
    p50_milliseconds: Annotated[float, Field(gt=0)]
    p95_milliseconds: Annotated[float, Field(gt=0)]
    p99_milliseconds: Annotated[float, Field(gt=0)] | None = None
    samples: Annotated[int, Field(ge=1)]


class Environment(Record):
    """Where a profile was taken; profiles of different environments are not compared."""

    cpu_model: str
    instruction_sets: tuple[str, ...] = ()
    logical_cpus: int
    cpu_quota: float | None = None
    threads: Annotated[int, Field(ge=1)]
    onnxruntime_version: str
    platform: str


class Profile(Record):
    """What a variant costs in one environment. Memory in bytes above the empty runtime."""

    environment: Environment
    latencies: Annotated[tuple[LatencyProfile, ...], Field(min_length=1, max_length=8)]
    load_milliseconds: Annotated[float, Field(gt=0)]
    memory_peak_bytes: Annotated[int, Field(ge=0)]
    memory_steady_bytes: Annotated[int, Field(ge=0)]

    def latency(self, batch_size: int) -> LatencyProfile | None:
        """The profile at this batch size, if it was measured."""
        return next((entry for entry in self.latencies if entry.batch_size == batch_size), None)


class Tensor(Record):
    """A small tensor in full: shape (with the batch axis) and values in row-major order."""

    name: str
    shape: tuple[int, ...]
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _values_fill_the_shape(self) -> Tensor:
        if math.prod(self.shape) != len(self.values):
            raise ValueError(f"tensor {self.name}: {len(self.values)} values do not fill shape {self.shape}")
        return self


class Probe(Record):
    """Inputs with the outputs that this variant must give within the tolerance, never bit by bit:

    the same file gives different bits on another CPU or optimization level.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    absolute_tolerance: Annotated[float, Field(gt=0)]


class LayerKept(Record):
    """Channels of one layer before and after."""

    name: str
    before: int
    after: int


class Variant(Record):
    """One deployable ONNX model of the portfolio. ``rank`` 1 is the least accurate on validation."""

    name: Segment
    rank: Annotated[int, Field(ge=1, lt=VERSIONS_PER_REVISION)]
    file: Annotated[str, Field(pattern=r"^[0-9]{1,12}/model\.onnx$")]
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]
    parent: str | None
    method: Annotated[str, Field(min_length=1, max_length=253)]
    settings: dict[str, Any] = {}
    opset: int
    ir_version: int
    parameters: Annotated[int, Field(ge=0)]
    macs: Annotated[int, Field(ge=0)]
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    parity: ParityProof
    exactness: ExactnessProof | None
    layers: tuple[LayerKept, ...] = ()
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1, max_length=32)]
    probe: Probe


class RejectedCandidate(Record):
    """A candidate that did not become a variant, and why."""

    name: str
    reason: Annotated[str, Field(max_length=500)]
    validation_accuracy_percent: float | None = None
    p50_milliseconds: float | None = None
    p95_milliseconds: float | None = None


class DataDigests(Record):
    """What the model was made from: URIs and digests of the three disjoint parts, with their sizes."""

    training_uri: str
    training_sha256: Digest
    validation_sha256: Digest
    test_sha256: Digest
    training_samples: int
    validation_samples: int
    test_samples: int


class Manifest(Record):
    """One revision of one model's portfolio."""

    schema_version: Literal["edgefolio.dev/manifest/v1"] = "edgefolio.dev/manifest/v1"
    model: Segment
    revision: Annotated[int, Field(ge=1, le=2**24)]
    created: str
    edgefolio_version: str
    specification: dict[str, Any]
    specification_sha256: Digest
    seed: int
    source: str
    source_sha256: Digest | None = None
    data: DataDigests
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    signature: Signature
    software: dict[str, str]
    request_batch_size: Annotated[int, Field(ge=1)]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=16)]
    rejected: tuple[RejectedCandidate, ...] = ()
    accuracy_floor_met: bool = True
    reproduce: str = ""

    @model_validator(mode="after")
    def _variants_are_ordered(self) -> Manifest:
        if [variant.rank for variant in self.variants] != list(range(1, len(self.variants) + 1)):
            raise ValueError("variants must be listed by rank 1..n")
        if len({variant.name for variant in self.variants}) != len(self.variants):
            raise ValueError("variant names must differ")
        for variant in self.variants:
            if variant.file != f"{self.version_of(variant)}/model.onnx":
                raise ValueError(f"variant {variant.name}: file must be {self.version_of(variant)}/model.onnx")
        return self

    def version_of(self, variant: Variant) -> int:
        """The Triton version that serves ``variant``."""
        return self.revision * VERSIONS_PER_REVISION + variant.rank

    def variant(self, name: str) -> Variant:
        """The variant called ``name``. Raises KeyError."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, a final newline. Equal manifests give equal bytes."""
        document = self.model_dump(mode="json", by_alias=True)
        return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, raw: bytes, *, location: str) -> Manifest:
        """Parse what :meth:`to_bytes` wrote; ``location`` stands in errors. Raises :class:`IntegrityError`."""
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise IntegrityError("the manifest is not JSON.", location=location) from error
        found = document.get("schemaVersion") if isinstance(document, dict) else None
        if found != SCHEMA_VERSION:
            raise IntegrityError(
                f"the manifest has schema version {found!r}, this edgefolio reads {SCHEMA_VERSION!r}.",
                location=location,
                remedy="Read it with the edgefolio that wrote it, or publish the revision again.",
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "manifest"
            raise IntegrityError(
                f"the manifest breaks its schema at {where}: {first['msg']}.", location=location
            ) from error


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that a published manifest follows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_VERSION,
        **Manifest.model_json_schema(by_alias=True, mode="serialization"),
    }


class CurrentPointer(Record):
    """``current.json``: the revision that readers take, written last."""

    schema_version: Literal["edgefolio.dev/pointer/v1"] = "edgefolio.dev/pointer/v1"
    model: Segment
    revision: Annotated[int, Field(ge=1)]
    manifest_sha256: Digest


def sha256_of(raw: bytes) -> str:
    """Hexadecimal sha256 of ``raw``."""
    return hashlib.sha256(raw).hexdigest()
