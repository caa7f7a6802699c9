"""Profile of one revision on one class of processors: a file of its own beside the manifest, which never changes.

It holds measurements only. A wrong one makes a worse choice, never other bytes: names and digests of the variants are
the manifest's, and whoever reads it takes the figures of variants that the manifest knows. Fields that a newer version
adds are skipped; the figures stay within the bounds of the manifest's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from edgefolio.errors import IntegrityError
from edgefolio.manifest import Manifest, sha256_of
from edgefolio.manifest_parts import RevisionNumber
from edgefolio.processor_class import class_of
from edgefolio.records.base import Digest, Record, Segment
from edgefolio.records.measured import Environment, LatencyProfile, Profile
from edgefolio.untrusted.json_document import Line, Magnitude, Percent, parse_json

SCHEMA_VERSION = "edgefolio.dev/profile/v1"
#: Larger ones are refused unread: sixteen variants with eight batches each are some 30 KB.
MAXIMUM_PROFILE_BYTES = 1 << 20
#: The largest latency that a status holds.
_LARGEST_MILLISECONDS = 1e9
_TOLERANT = ConfigDict(extra="ignore")


class MeasuredLatency(LatencyProfile):
    """Latency of one batch."""

    model_config = _TOLERANT


class MeasuredEnvironment(Environment):
    """Where it was measured."""

    model_config = _TOLERANT

    @property
    def class_name(self) -> str:
        """The class of its processor."""
        return class_of(self.cpu_model, self.instruction_sets)


class MeasuredVariant(Record):
    """What one variant costs there; it is the manifest's variant of this name, and its file."""

    model_config = _TOLERANT

    name: Segment
    sha256: Digest
    latencies: Annotated[tuple[MeasuredLatency, ...], Field(min_length=1, max_length=8)]
    load_milliseconds: Annotated[float, Field(ge=1e-6, le=1e8)]
    memory_peak_bytes: Annotated[int, Field(ge=0, le=2**53)]
    memory_steady_bytes: Annotated[int, Field(ge=0, le=2**53)]
    #: How far the slowest round was above the fastest, in percent: what others did on the machine meanwhile.
    spread_percent: Magnitude = 0.0


class NodeProfile(Record):
    """The variants of one revision on one class of processors."""

    model_config = _TOLERANT

    schema_version: Literal["edgefolio.dev/profile/v1"] = "edgefolio.dev/profile/v1"
    model: Segment
    revision: RevisionNumber
    manifest_sha256: Digest
    class_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    created: Line
    edgefolio_version: Line
    environment: MeasuredEnvironment
    #: Share of the processors that others used before the measurement.
    busy_percent: Percent = 0.0
    variants: Annotated[tuple[MeasuredVariant, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _is_of_its_class(self) -> NodeProfile:
        if self.class_name != self.environment.class_name:
            raise ValueError(f"its environment is of class {self.environment.class_name}")
        if len({variant.name for variant in self.variants}) != len(self.variants):
            raise ValueError("variant names must differ")
        return self

    @property
    def spread_percent(self) -> float:
        """The largest spread of its variants."""
        return max(variant.spread_percent for variant in self.variants)

    def to_bytes(self) -> bytes:
        """JSON with sorted keys and a final newline. Equal profiles give equal bytes."""
        document = self.model_dump(mode="json", by_alias=True)
        return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def profiles(self) -> dict[str, Profile]:
        """The profile of each variant by name, as a manifest would hold it."""
        environment = Environment.model_validate(self.environment.model_dump())
        return {
            variant.name: Profile(
                environment=environment,
                latencies=tuple(LatencyProfile.model_validate(entry.model_dump()) for entry in variant.latencies),
                load_milliseconds=variant.load_milliseconds,
                memory_peak_bytes=variant.memory_peak_bytes,
                memory_steady_bytes=variant.memory_steady_bytes,
            )
            for variant in self.variants
        }

    def require_of(self, manifest: Manifest, *, manifest_sha256: str, location: str) -> None:
        """Raise :class:`IntegrityError` unless it is of exactly this revision and of all that one node serves of it."""
        if (self.model, self.revision) != (manifest.model, manifest.revision):
            raise refused(f"it is the profile of {self.model!r}, revision {self.revision}.", location=location)
        if self.manifest_sha256 != manifest_sha256:
            raise refused(f"it is the profile of another manifest ({self.manifest_sha256[:12]}...).", location=location)
        measured = {(variant.name, variant.sha256) for variant in self.variants}
        if measured != {(variant.name, variant.sha256) for variant in manifest.single_node}:
            raise refused("it is not of the variants of its revision.", location=location)
        batch = manifest.request_batch_size
        for variant in self.variants:
            for entry in variant.latencies:
                largest = max(entry.mean_milliseconds, entry.p95_milliseconds) * batch / entry.batch_size
                if largest >= _LARGEST_MILLISECONDS:
                    raise refused(f"the latency of a batch of {variant.name} is too large a number.", location=location)


def refused(problem: str, *, location: str) -> IntegrityError:
    """The error of a profile that is not used."""
    return IntegrityError(problem, location=location, remedy="Measure it again: edgefolio profile --again.")


@dataclass(frozen=True, kw_only=True)
class PublishedProfile:
    """A profile with its published bytes, which alone have the digest."""

    profile: NodeProfile
    raw: bytes

    @cached_property
    def sha256(self) -> str:
        """Digest of the bytes."""
        return sha256_of(self.raw)

    @classmethod
    def of(cls, profile: NodeProfile) -> PublishedProfile:
        """``profile`` as :meth:`NodeProfile.to_bytes` writes it."""
        return cls(profile=profile, raw=profile.to_bytes())

    @classmethod
    def from_bytes(cls, raw: bytes, *, location: str, sha256: str | None = None) -> PublishedProfile:
        """Parse ``raw``, which must have the digest ``sha256`` where one is given. Raises :class:`IntegrityError`."""
        if len(raw) > MAXIMUM_PROFILE_BYTES:
            raise refused(f"the profile is larger than {MAXIMUM_PROFILE_BYTES} bytes.", location=location)
        if sha256 is not None and sha256_of(raw) != sha256:
            raise refused(f"the profile's digest is {sha256_of(raw)}, expected {sha256}.", location=location)
        document = parse_json(raw, what="profile", location=location)
        try:
            return cls(profile=NodeProfile.model_validate(document), raw=raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:200] or "profile"
            raise refused(
                f"the profile breaks its schema at {where}: {first['msg'][:300]}.", location=location
            ) from error


def profile_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that a profile follows; readers skip fields that they do not know."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_VERSION,
        **NodeProfile.model_json_schema(by_alias=True, mode="serialization"),
    }
