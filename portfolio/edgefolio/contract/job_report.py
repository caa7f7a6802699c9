"""Termination message of a Job's container, at most 4 KiB: what it published, or why it failed.

Success carries the digest of the manifest, which is the trust root: it reaches the endpoints through the resource's
status, never through the repository that it vouches for. Bad input carries the same three lines that the command
prints. Each variant is a row, not an object: sixteen of them must fit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefolio.contract.endpoint_report import split_status_of, variant_status_of
from edgefolio.contract.log_format import printable_json
from edgefolio.contract.node_profiles import processor_report
from edgefolio.contract.pod import TERMINATION_MESSAGE, TERMINATION_MESSAGE_VARIABLE
from edgefolio.decision.profiles import profiles_from_manifest
from edgefolio.errors import EdgefolioError, IntegrityError, TransientError, UserError, out_of_memory
from edgefolio.manifest import Manifest
from edgefolio.node_profile import PublishedProfile
from edgefolio.shown_text import printable
from edgefolio.specification.conditions import RevisionNumber, Sha256
from edgefolio.specification.portfolio_status import ClassName, ProcessorReport, SplitStatus, VariantStatus
from edgefolio.specification.validation.base import resource_name
from edgefolio.uris import redacted

#: Kubernetes truncates termination messages here.
LARGEST_MESSAGE_BYTES = 4096
_ROW = tuple(VariantStatus.model_fields)
_SPLIT_ROW = tuple(SplitStatus.model_fields)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=resource_name, populate_by_name=True)

    def to_message(self) -> str:
        """One line of JSON, at most :data:`LARGEST_MESSAGE_BYTES` long."""
        return printable_json(self._document(), separators=(",", ":"))

    def _document(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, mode="json")


class PublishedReport(_Message):
    """A revision was published, or was already there."""

    kind: Literal["Published"] = "Published"
    revision: RevisionNumber
    manifest_digest: Sha256
    accuracy_floor_met: bool = True
    variants: Annotated[tuple[VariantStatus, ...], Field(min_length=1, max_length=16)]
    #: Beside the variants, so that an operator of before reads those, and skips what it does not know.
    splits: Annotated[tuple[SplitStatus, ...], Field(max_length=4)] = ()
    measured_on: ProcessorReport | None = None

    @classmethod
    def of(cls, manifest: Manifest, *, digest: str) -> PublishedReport:
        """The report of the published ``manifest``, whose bytes have the sha256 ``digest``."""
        environment = manifest.variants[0].profiles[0].environment
        return cls(
            revision=manifest.revision,
            manifest_digest=digest,
            accuracy_floor_met=manifest.accuracy_floor_met,
            variants=tuple(variant_status_of(profile) for profile in profiles_from_manifest(manifest)),
            splits=tuple(split_status_of(variant) for variant in manifest.splits),
            measured_on=processor_report(environment.cpu_model, environment.instruction_sets),
        )

    def _document(self) -> dict[str, Any]:
        splits = {"splits": [[getattr(split, field) for field in _SPLIT_ROW] for split in self.splits]}
        return {**_with_rows(self, self.variants), **(splits if self.splits else {})}


class ProfiledReport(_Message):
    """A published revision was measured on the Job's node, or had been on such a node before.

    ``note`` says that the machine was busy.
    """

    kind: Literal["Profiled"] = "Profiled"
    revision: RevisionNumber
    manifest_digest: Sha256
    class_name: ClassName
    digest: Sha256
    processor: ProcessorReport
    note: Annotated[str, Field(max_length=200)] = ""
    variants: Annotated[tuple[VariantStatus, ...], Field(min_length=1, max_length=16)]

    @classmethod
    def of(cls, manifest: Manifest, published: PublishedProfile, *, note: str = "") -> ProfiledReport:
        """The report of the profile ``published`` of ``manifest``."""
        profile = published.profile
        return cls(
            revision=profile.revision,
            manifest_digest=profile.manifest_sha256,
            class_name=profile.class_name,
            digest=published.sha256,
            processor=processor_report(profile.environment.cpu_model, profile.environment.instruction_sets),
            note=note,
            variants=tuple(variant_status_of(entry) for entry in profiles_from_manifest(manifest, measured=profile)),
        )

    def _document(self) -> dict[str, Any]:
        return _with_rows(self, self.variants)


def _with_rows(report: PublishedReport | ProfiledReport, variants: tuple[VariantStatus, ...]) -> dict[str, Any]:
    rows = [[getattr(variant, field) for field in _ROW] for variant in variants]
    return {
        **report.model_dump(by_alias=True, mode="json", exclude={"variants", "splits"}, exclude_none=True),
        "variants": rows,
    }


class FailureReport(_Message):
    """Nothing was published, or found.

    | kind | meaning |
    |---|---|
    | ``BadInput`` | it will fail again until the user fixes it |
    | ``Failed`` | transient, or of unknown cause |
    | ``Refused`` | the published bytes fail verification |
    | ``Nothing`` | the requested revision is not published |
    """

    kind: Literal["BadInput", "Failed", "Refused", "Nothing"]
    field: Annotated[str, Field(max_length=253)] = ""
    value: Annotated[str, Field(max_length=300)] = ""
    problem: Annotated[str, Field(max_length=500)]
    remedy: Annotated[str, Field(max_length=200)] = ""

    @classmethod
    def of(cls, error: BaseException) -> FailureReport:
        """The report of a pruning run's error."""
        # Memory that is too small once is so again: the kernel ends a container that is over its limit otherwise.
        error = out_of_memory(error) or error
        if isinstance(error, UserError):
            return cls(
                kind="Failed" if isinstance(error, TransientError) else "BadInput",
                field=_cut(error.field, 253),
                value=_cut(error.value or "", 300),
                problem=_cut(error.problem, 500),
                remedy=_cut(error.remedy, 200),
            )
        if isinstance(error, IntegrityError):
            return cls(
                kind="BadInput",
                field=_cut(error.location, 253),
                problem=_cut(error.problem, 500),
                remedy=_cut(error.remedy, 200),
            )
        known = isinstance(error, EdgefolioError)
        return cls(kind="Failed", problem=_cut(str(error) if known else f"{type(error).__name__}: {error}", 500))

    def one_line(self) -> str:
        """The failure as a condition's message."""
        shown = f" = {self.value!r}" if self.value else ""
        where = f"{self.field}{shown}: " if self.field else ""
        return f"{where}{self.problem} {self.remedy}".strip()


class ProgressLine(_Message):
    """A line of a Job's log that reports progress."""

    stage: Annotated[str, Field(min_length=1, max_length=63)]
    percent: Annotated[int, Field(ge=0, le=100)]
    message: str = ""

    @classmethod
    def newest_in(cls, log: str) -> ProgressLine | None:
        """The last progress line in ``log``; other output of the container is skipped."""
        for line in reversed(log.split("\n")):
            try:
                return cls.model_validate_json(line)
            except ValidationError:
                continue
        return None


#: What a Job says at its end.
JobReport = PublishedReport | ProfiledReport | FailureReport
_WITH_ROWS: dict[str, type[PublishedReport] | type[ProfiledReport]] = {
    "Published": PublishedReport,
    "Profiled": ProfiledReport,
}


def report_of_message(text: str) -> JobReport | None:
    """Parse a termination message; ``None`` if it is not one of ours (a killed container leaves none)."""
    try:
        document = json.loads(text)
        kind = _WITH_ROWS.get(document["kind"])
        if kind is None:
            return FailureReport.model_validate(document)
        rows = [dict(zip(_ROW, row, strict=True)) for row in document["variants"]]
        splits = [dict(zip(_SPLIT_ROW, row, strict=True)) for row in document.get("splits", ())]
        return kind.model_validate({**document, "variants": rows, "splits": splits})
    except (ValueError, TypeError, LookupError, RecursionError, ValidationError):
        return None


def write_termination_message(report: JobReport) -> None:
    """Print ``report``, and write it where Kubernetes reads the container's termination message."""
    message = report.to_message()
    print(message, flush=True)
    path = Path(os.environ.get(TERMINATION_MESSAGE_VARIABLE, TERMINATION_MESSAGE))
    path.write_text(message, encoding="utf-8")


def _cut(text: str, limit: int) -> str:
    """``text`` cut to ``limit`` bytes, without credentials and control characters: each would take six in JSON."""
    clean = printable(redacted(text[: 8 * limit]))
    raw = clean.encode()
    return clean if len(raw) <= limit else raw[: limit - 3].decode(errors="ignore") + "…"
