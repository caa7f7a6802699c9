"""The ``status`` of a ModelPortfolio: what the operator found and did. A lost one is rebuilt, except
for the digests of the manifests, which came out of the Job and are what readers trust.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from edgefolio.specification.base import DecimalString
from edgefolio.specification.cel import WRITTEN_WHOLE, list_map
from edgefolio.specification.conditions import (
    Condition,
    Failure,
    Generation,
    Message,
    ReasonWord,
    RevisionNumber,
    Sha256,
    StatusRecord,
    Time,
    VariantName,
)

Count = Annotated[int, Field(ge=0, le=1_000_000)]
#: The largest whole number that every reader of JSON holds exactly.
LARGEST_BYTES = 2**53
Bytes = Annotated[int, Field(ge=0, le=LARGEST_BYTES)]


class VariantStatus(StatusRecord):
    """What the decision must know of one variant; the whole profile stands in the manifest."""

    name: VariantName
    """Its name."""
    rank: Annotated[int, Field(ge=1, le=99)]
    """Position by validation accuracy; 1 is the least accurate."""
    accuracy_percent: DecimalString
    """Accuracy on the test samples."""
    mean_milliseconds: DecimalString
    """Mean latency of one request batch on an idle node."""
    p95_milliseconds: DecimalString
    """95 % latency of one request batch on an idle node."""
    load_milliseconds: DecimalString
    """Time to load it."""
    memory_peak_bytes: Bytes
    """Memory while loading, above the empty server."""
    memory_steady_bytes: Bytes
    """Memory while serving, above the empty server."""


class RevisionStatus(StatusRecord):
    """One published making."""

    number: RevisionNumber
    """Its number; never used again for anything else."""
    manifest_digest: Sha256
    """sha256 of its manifest: endpoints serve nothing that it does not vouch for."""
    specification_hash: Annotated[str, Field(max_length=64)] = ""
    """What it was made from, in short; empty where others made it."""
    published_time: Time
    """When it was published."""
    variants: Annotated[tuple[VariantStatus, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = ()
    """Its variants by rank."""


class JobStatus(StatusRecord):
    """The current or last making. It outlives the Job, so that a Job removed by its time to live is not run again."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the Job."""
    specification_hash: Annotated[str, Field(max_length=64)]
    """What it makes from."""
    request: Annotated[str, Field(max_length=128)] = ""
    """Value of the annotation edgefolio.dev/make-requested-at that asked for it."""
    outcome: Literal["Running", "Suspended", "Succeeded", "Failed", "Superseded"]
    """How it ended, or that it has not."""
    stage: Annotated[str, Field(max_length=63)] = ""
    """What it is doing."""
    progress_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """How far the stage is."""
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Makings of this specification so far."""
    start_time: Time | None = None
    """When it began."""
    completion_time: Time | None = None
    """When it ended."""
    message: Message = ""
    """What it said last."""


class CheckStatus(StatusRecord):
    """The last look into a repository that others publish to."""

    specification_hash: Annotated[str, Field(max_length=64)]
    """What was asked for: repository, model, revision."""
    request: Annotated[str, Field(max_length=128)] = ""
    """Value of the annotation edgefolio.dev/make-requested-at that asked for it."""
    job: Annotated[str, Field(max_length=253)] = ""
    """Name of the Job that looks; empty between two looks."""
    outcome: Literal["Unknown", "Found", "Nothing", "Unreachable", "Refused"] = "Unknown"
    """What the last look that ended came to."""
    reason: ReasonWord | None = None
    """Why nothing was found, in one word."""
    message: Message = ""
    """Why, for people."""
    time: Time | None = None
    """When it ended."""


class VariantCount(StatusRecord):
    """How many endpoints serve one variant."""

    variant: VariantName
    """The variant."""
    revision: RevisionNumber
    """Its revision."""
    count: Count
    """Endpoints that serve it."""


class EndpointCounts(StatusRecord):
    """How the endpoints are."""

    summary: Annotated[str, Field(max_length=32)]
    """meeting objectives / total."""
    total: Count
    """Endpoints whose pod and node are Ready."""
    available: Count
    """Those that serve a verified variant."""
    meeting_objectives: Count
    """Those that meet what is asked of them."""
    by_variant: Annotated[
        tuple[VariantCount, ...], Field(max_length=64, json_schema_extra=list_map("variant", "revision"))
    ] = ()
    """Endpoints by variant."""


class RolloutStatus(StatusRecord):
    """The rollout under way, or the last one."""

    revision: RevisionNumber
    """Where it goes."""
    from_revision: RevisionNumber | None = None
    """Where it came from, and goes back to."""
    phase: Literal["Progressing", "Completed", "Paused", "RolledBack"]
    """What became of it."""
    updated: Count = 0
    """Endpoints that were sent to it."""
    wave_start_time: Time | None = None
    """When the last wave was sent."""
    reason: ReasonWord | None = None
    """Why it was stopped."""
    message: Message = ""
    """Why it was stopped, for people."""


class Address(StatusRecord):
    """Where clients reach the model."""

    url: Annotated[str, Field(max_length=512)]
    """Inside the cluster."""


class PortfolioStatus(StatusRecord):
    """What was found and done for a ModelPortfolio."""

    model_config = ConfigDict(json_schema_extra=WRITTEN_WHOLE)

    observed_generation: Generation = 0
    """Generation of the spec that this is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=list_map("type"))] = ()
    """Ready, Reconciling, Stalled, Making, ObjectivesMet, Degraded and the like."""
    current_revision: Annotated[int, Field(ge=0, le=2**24)] = 0
    """The revision that endpoints are to serve; 0: none yet."""
    variant_count: Annotated[int, Field(ge=0, le=16)] = 0
    """Its number of variants."""
    revisions: Annotated[tuple[RevisionStatus, ...], Field(max_length=20, json_schema_extra=list_map("number"))] = ()
    """The revisions that are kept."""
    job: JobStatus | None = None
    """The current or last making."""
    check: CheckStatus | None = None
    """Without source: the last look into the repository."""
    rollout: RolloutStatus | None = None
    """The current or last rollout."""
    endpoints: EndpointCounts | None = None
    """How the endpoints are."""
    address: Address | None = None
    """Where clients reach the model."""
    last_switch_time: Time | None = None
    """When an endpoint last changed its variant."""
    last_failure: Failure | None = None
    """The last thing that went wrong."""
