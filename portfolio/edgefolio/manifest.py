"""The manifest of one revision: everything a reader needs to verify, choose and serve its variants.

It is the contract between the room that makes variants and those that serve them. Its digest (sha256 over the bytes as
published) is the trust root and travels outside the repository; all other digests stand inside it. The JSON Schema is
published from these models. Floats are allowed here: a manifest is a record of measurements, no Kubernetes resource.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from edgefolio.errors import IntegrityError
from edgefolio.manifest_parts import (
    LARGEST_BATCH_VALUES,
    LARGEST_REVISION,
    MOST_LISTED_CLASSES,
    VERSIONS_PER_REVISION,
    Accuracy,
    ClassFigures,
    ClassSamples,
    DataDigests,
    ExactnessProof,
    FloatLayer,
    LayerKept,
    ParityProof,
    PictureReading,
    Preprocessing,
    Probe,
    QuantizationRecord,
    RejectedCandidate,
    RevisionNumber,
    ScoreDescription,
    ScoreFigures,
    Signature,
    Tensor,
    TensorSignature,
    Variant,
    fits,
)
from edgefolio.records.base import Digest, Record, Segment
from edgefolio.records.measured import Environment, LatencyProfile, Profile
from edgefolio.untrusted.json_document import (
    LARGEST_COUNT,
    BatchSize,
    Document,
    FreeText,
    Line,
    parse_json,
)

SCHEMA_VERSION = "edgefolio.dev/manifest/v1"
#: Of manifests that hold a split. Readers of before splits refuse them, and keep the revision that serves.
SPLIT_SCHEMA_VERSION = "edgefolio.dev/manifest/v2"

__all__ = [
    "LARGEST_REVISION",
    "MOST_LISTED_CLASSES",
    "SCHEMA_VERSION",
    "SPLIT_SCHEMA_VERSION",
    "VERSIONS_PER_REVISION",
    "Accuracy",
    "ClassFigures",
    "ClassSamples",
    "CurrentPointer",
    "DataDigests",
    "Digest",
    "Environment",
    "ExactnessProof",
    "FloatLayer",
    "LatencyProfile",
    "LayerKept",
    "Manifest",
    "ParityProof",
    "PictureReading",
    "Preprocessing",
    "Probe",
    "Profile",
    "PublishedManifest",
    "QuantizationRecord",
    "Record",
    "RejectedCandidate",
    "RevisionNumber",
    "ScoreDescription",
    "ScoreFigures",
    "Segment",
    "Signature",
    "Tensor",
    "TensorSignature",
    "Variant",
    "manifest_schema",
    "sha256_of",
]


class Manifest(Record):
    """One revision of one model's portfolio."""

    schema_version: Literal["edgefolio.dev/manifest/v1", "edgefolio.dev/manifest/v2"] = "edgefolio.dev/manifest/v1"
    model: Segment
    revision: RevisionNumber
    created: Line
    edgefolio_version: Line
    specification: Document
    specification_sha256: Digest
    seed: Annotated[int, Field(ge=-LARGEST_COUNT, le=LARGEST_COUNT)]
    source: FreeText
    source_sha256: Digest | None = None
    data: DataDigests
    labels: Annotated[tuple[FreeText, ...], Field(max_length=100_000)]
    class_samples: Annotated[ClassSamples | None, Field(exclude_if=lambda value: value is None)] = None
    #: Absent: accuracies are top-1 accuracies.
    score: Annotated[ScoreDescription | None, Field(exclude_if=lambda value: value is None)] = None
    preprocessing: Preprocessing
    signature: Signature
    software: Annotated[dict[Line, Line], Field(max_length=256)]
    request_batch_size: BatchSize
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=16)]
    rejected: Annotated[tuple[RejectedCandidate, ...], Field(max_length=1000)] = ()
    accuracy_floor_met: bool = True
    reproduce: FreeText = ""
    #: What a reader of the figures must know, one sentence each.
    notes: Annotated[
        tuple[Annotated[FreeText, Field(max_length=1000)], ...],
        Field(max_length=64, exclude_if=lambda value: not value),
    ] = ()

    @model_validator(mode="after")
    def _variants_are_ordered(self) -> Manifest:
        if [variant.rank for variant in self.variants] != list(range(1, len(self.variants) + 1)):
            raise ValueError("variants must be listed by rank 1..n")
        if len({variant.name for variant in self.variants}) != len(self.variants):
            raise ValueError("variant names must differ")
        for variant in self.variants:
            wanted = f"{self.version_of(variant)}/{variant.file_name}"
            if variant.file != wanted:
                raise ValueError(f"variant {variant.name}: file must be {wanted}")
        return self

    @model_validator(mode="after")
    def _splits_have_their_version(self) -> Manifest:
        wanted = SPLIT_SCHEMA_VERSION if self.splits else SCHEMA_VERSION
        if self.schema_version != wanted:
            raise ValueError(f"schemaVersion must be {wanted}, by whether a variant is a split")
        if not self.single_node:
            raise ValueError("one variant at least must be no split: there must be one to fall back to")
        return self

    @model_validator(mode="after")
    def _classes_are_those_of_the_labels(self) -> Manifest:
        classes = len(self.labels)
        counted = self.class_samples
        if counted is not None and {len(counted.training), len(counted.validation), len(counted.test)} != {classes}:
            raise ValueError("classSamples must count the samples of every label")
        for variant in self.variants:
            figures = variant.test_classes
            if figures is not None and (
                figures.lowest_class >= classes or len(figures.recall_percents) not in (0, classes)
            ):
                raise ValueError(f"variant {variant.name}: testClasses must hold the recall of every label")
        return self

    @model_validator(mode="after")
    def _probes_fit_their_types(self) -> Manifest:
        types = {tensor.name: tensor.datatype for tensor in (*self.signature.inputs, *self.signature.outputs)}
        for variant in self.variants:
            for tensor in (*variant.probe.inputs, *variant.probe.outputs):
                if not fits(tensor.values, types.get(tensor.name, "FP32")):
                    raise ValueError(f"variant {variant.name}: the probe's values of {tensor.name} are not of its type")
        return self

    @model_validator(mode="after")
    def _batches_are_of_a_size(self) -> Manifest:
        batch = self.request_batch_size
        for variant in self.variants:
            values = sum(math.prod(tensor.shape[1:]) for tensor in variant.probe.inputs)
            if batch * values > LARGEST_BATCH_VALUES:
                raise ValueError(f"variant {variant.name}: a batch has more than {LARGEST_BATCH_VALUES} values")
            for entry in variant.profiles[0].latencies:
                # Scaled to the users' batch it must still be a number that a status holds.
                if max(entry.mean_milliseconds, entry.p95_milliseconds) * batch / entry.batch_size >= 1e9:
                    raise ValueError(f"variant {variant.name}: the latency of a batch is too large a number")
        return self

    @property
    def score_word(self) -> str:
        """What :class:`Accuracy` is called in headings and sentences."""
        return "accuracy" if self.score is None else self.score.word

    @property
    def score_unit(self) -> str:
        """What follows its figure: ``%``, or that it is told beside the dense model."""
        return "% of the dense model's" if self.score is not None and self.score.unit == "PercentOfDense" else "%"

    @property
    def single_node(self) -> tuple[Variant, ...]:
        """The variants that one server serves by itself, by rank."""
        return tuple(variant for variant in self.variants if variant.split is None)

    @property
    def splits(self) -> tuple[Variant, ...]:
        """The variants that several nodes compute together, by rank; `edgefolio serve` alone serves them."""
        return tuple(variant for variant in self.variants if variant.split is not None)

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
        document = parse_json(raw, what="manifest", location=location)
        found = document.get("schemaVersion") if isinstance(document, dict) else None
        if found not in (SCHEMA_VERSION, SPLIT_SCHEMA_VERSION):
            raise IntegrityError(
                f"the manifest has schema version {str(found)[:80]!r}, this edgefolio reads {SCHEMA_VERSION!r} and "
                f"{SPLIT_SCHEMA_VERSION!r}.",
                location=location,
                remedy="Read it with the edgefolio that wrote it, or publish the revision again.",
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise _broken("manifest", error, location=location) from error


@dataclass(frozen=True, kw_only=True)
class PublishedManifest:
    """A manifest with its published bytes, which may not be canonical; only they have the digest."""

    manifest: Manifest
    raw: bytes

    @cached_property
    def sha256(self) -> str:
        """Digest of the bytes."""
        return sha256_of(self.raw)

    @classmethod
    def of(cls, manifest: Manifest) -> PublishedManifest:
        """``manifest`` as :meth:`Manifest.to_bytes` writes it."""
        return cls(manifest=manifest, raw=manifest.to_bytes())

    @classmethod
    def from_bytes(cls, raw: bytes, *, location: str) -> PublishedManifest:
        """Parse ``raw``. Raises :class:`IntegrityError`."""
        return cls(manifest=Manifest.from_bytes(raw, location=location), raw=raw)


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that a published manifest follows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        # Version 2 is version 1 with splits.
        "$id": SPLIT_SCHEMA_VERSION,
        **Manifest.model_json_schema(by_alias=True, mode="serialization"),
    }


class CurrentPointer(Record):
    """``current.json``: the revision that readers take, written last."""

    schema_version: Literal["edgefolio.dev/pointer/v1"] = "edgefolio.dev/pointer/v1"
    model: Segment
    revision: RevisionNumber
    manifest_sha256: Digest

    @classmethod
    def from_bytes(cls, raw: bytes, *, location: str) -> CurrentPointer:
        """Parse a pointer. Raises :class:`IntegrityError`."""
        document = parse_json(raw, what="pointer", location=location)
        try:
            return cls.model_validate(document, strict=True)
        except ValidationError as error:
            raise _broken("pointer", error, location=location) from error


def sha256_of(raw: bytes) -> str:
    """Hexadecimal sha256 of ``raw``."""
    return hashlib.sha256(raw).hexdigest()


def _broken(what: str, error: ValidationError, *, location: str) -> IntegrityError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200] or what
    return IntegrityError(f"the {what} breaks its schema at {where}: {first['msg'][:300]}.", location=location)
