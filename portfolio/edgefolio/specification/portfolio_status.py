"""The ``status`` of a ModelPortfolio: what the operator found and did. A lost one is rebuilt, except
for the digests of the manifests, which came out of the Job and are what readers trust.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from edgefolio.specification.cluster import ObjectName
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
from edgefolio.specification.validation.base import DecimalString
from edgefolio.specification.validation.cel import WRITTEN_WHOLE, list_map

Count = Annotated[int, Field(ge=0, le=1_000_000)]
#: The largest whole number that every reader of JSON holds exactly.
LARGEST_BYTES = 2**53
Bytes = Annotated[int, Field(ge=0, le=LARGEST_BYTES)]
#: A class of processors, as :func:`edgefolio.processor_class.class_of` names it.
ClassName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", max_length=63)]


class VariantStatus(StatusRecord):
    """The part of a variant's profile that the decision uses; the whole profile is in the manifest."""

    name: VariantName
    """Its name."""
    rank: Annotated[int, Field(ge=1, le=99)]
    """Position by validation accuracy; 1 is the least accurate."""
    accuracy_percent: DecimalString
    """Accuracy on the test samples; with data.metric the test score in percent."""
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


class SplitStatus(StatusRecord):
    """A split of a revision: listed; agents in a cluster serve none, `edgefolio serve --worker-set` does."""

    name: VariantName
    """Its name."""
    rank: Annotated[int, Field(ge=1, le=99)]
    """Position by validation accuracy among all variants."""
    workers: Annotated[int, Field(ge=2, le=8)]
    """Nodes that compute one answer together."""
    accuracy_percent: DecimalString
    """Accuracy on the test samples; with data.metric the test score in percent."""
    predicted_milliseconds: DecimalString
    """One sample: the slowest worker's compute and the declared link."""
    received_bytes: Bytes
    """Bytes a sample into the worker that receives most."""
    memory_bytes: Bytes
    """Memory of the largest worker, above the empty server."""


class ProcessorReport(StatusRecord):
    """A processor; its name and instruction sets are its class."""

    model: Annotated[str, Field(max_length=200)]
    """Its name; on ARM the part numbers of its cores."""
    instruction_sets: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$", max_length=32)], ...], Field(max_length=32)
    ] = ()
    """Those that change how fast a network runs, and that all of its cores have."""


class ProfileStatus(StatusRecord):
    """One of ``profiling.nodeSelectors`` for a revision: the Job, and what it measured."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the entry."""
    key: Annotated[str, Field(max_length=16)]
    """What its Job was asked for, in short: another selector is measured anew."""
    job: Annotated[str, Field(max_length=253)]
    """Name of the Job."""
    outcome: Literal["Running", "Measured", "Failed"]
    """Running, or how it ended."""
    message: Message = ""
    """Why it failed or waits, or that the machine was busy, for people."""
    time: Time
    """When it began or ended."""
    class_name: ClassName | None = None
    """The class of processors that was measured."""
    digest: Sha256 | None = None
    """sha256 of the profile in the repository."""
    processor: ProcessorReport | None = None
    """The processor that was measured."""
    variants: Annotated[tuple[VariantStatus, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = ()
    """What the variants cost there."""


class RevisionStatus(StatusRecord):
    """One published pruning run."""

    number: RevisionNumber
    """Its number; never used again for anything else."""
    manifest_digest: Sha256
    """sha256 of its manifest: endpoints serve nothing that it does not vouch for."""
    specification_hash: Annotated[str, Field(max_length=64)] = ""
    """What it was made from, in short; empty where others made it."""
    published_time: Time
    """When it was published."""
    variants: Annotated[tuple[VariantStatus, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = ()
    """Its variants by rank; splits apart."""
    splits: Annotated[
        tuple[SplitStatus, ...],
        Field(max_length=4, exclude_if=lambda value: not value, json_schema_extra=list_map("name")),
    ] = ()
    """Its splits over several nodes by rank."""
    measured_on: ProcessorReport | None = None
    """The processor that the manifest's own profiles were measured on; absent: a Job of before did not say."""
    profiles: Annotated[
        tuple[ProfileStatus, ...],
        Field(max_length=8, exclude_if=lambda value: not value, json_schema_extra=list_map("name")),
    ] = ()
    """Profiles of its variants on other classes of processors."""


class JobStatus(StatusRecord):
    """The current or last run. It outlives the Job, so that a Job removed by its time to live is not run again."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the Job."""
    specification_hash: Annotated[str, Field(max_length=64)]
    """Key of the specification that the revision is made from."""
    request: Annotated[str, Field(max_length=128)] = ""
    """Value of the annotation edgefolio.dev/make-requested-at that asked for it."""
    outcome: Literal["Running", "Suspended", "Succeeded", "Failed", "Superseded"]
    """Running or Suspended, or how it ended."""
    stage: Annotated[str, Field(max_length=63)] = ""
    """Stage of the pipeline."""
    progress_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Progress of the stage, in percent."""
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Pruning runs of this specification so far."""
    start_time: Time | None = None
    """When it began."""
    completion_time: Time | None = None
    """When it ended."""
    message: Message = ""
    """Last message of the Job."""


class CheckStatus(StatusRecord):
    """The last look into a repository that others publish to."""

    specification_hash: Annotated[str, Field(max_length=64)]
    """What was asked for: repository, model, revision."""
    request: Annotated[str, Field(max_length=128)] = ""
    """Value of the annotation edgefolio.dev/make-requested-at that asked for it."""
    job: Annotated[str, Field(max_length=253)] = ""
    """Name of the Job that looks; empty between two looks."""
    outcome: Literal["Unknown", "Found", "Nothing", "Unreachable", "Refused"] = "Unknown"
    """Outcome of the last finished look."""
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
    """Counts of the endpoints."""

    summary: Annotated[str, Field(max_length=32)]
    """meeting objectives / total."""
    total: Count
    """Endpoints whose pod and node are Ready."""
    available: Count
    """Those that serve a verified variant."""
    meeting_objectives: Count
    """Those that meet their objectives."""
    by_variant: Annotated[
        tuple[VariantCount, ...], Field(max_length=64, json_schema_extra=list_map("variant", "revision"))
    ] = ()
    """Endpoints by variant."""


class FailedEndpoint(StatusRecord):
    """An endpoint that could not serve the revision of a rollout."""

    endpoint: ObjectName
    """Its name."""
    reason: ReasonWord
    """Why, in CamelCase."""
    since: Time
    """When it was first seen to fail, or was left behind."""
    attempts: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """How often it was sent to the revision."""
    left_behind: bool = False
    """It stays on the revision before, and is tried again later."""


class RolloutStatus(StatusRecord):
    """The rollout under way, or the last one."""

    revision: RevisionNumber
    """Target revision."""
    from_revision: RevisionNumber | None = None
    """Previous revision, and the one a rollback returns to."""
    phase: Literal["Progressing", "Completed", "Paused", "RolledBack"]
    """Progressing or Paused, or how the rollout ended."""
    updated: Count = 0
    """Endpoints that were ordered to the target."""
    wave_start_time: Time | None = None
    """Time of the last wave."""
    reason: ReasonWord | None = None
    """Why it was stopped."""
    message: Message = ""
    """Why it was stopped, for people."""
    wave_size: Count | None = None
    """Endpoints of the last wave."""
    failures: (
        Annotated[tuple[FailedEndpoint, ...], Field(max_length=256, json_schema_extra=list_map("endpoint"))] | None
    ) = None
    """Endpoints that could not serve the revision."""
    attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How often it was begun; absent: once."""
    next_attempt_time: Time | None = None
    """When a revision that was rolled back is tried again; absent: when it is asked for."""
    request: Annotated[str, Field(max_length=128)] | None = None
    """Value of the annotation edgefolio.dev/rollout-requested-at that was last followed."""


class Address(StatusRecord):
    """Where clients reach the model."""

    url: Annotated[str, Field(max_length=512)]
    """Inside the cluster."""


class PortfolioStatus(StatusRecord):
    """Observed state of a ModelPortfolio."""

    model_config = ConfigDict(json_schema_extra=WRITTEN_WHOLE)

    observed_generation: Generation = 0
    """metadata.generation of the spec that this status describes."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=list_map("type"))] = ()
    """Ready, Reconciling, Stalled, Making, ObjectivesMet, Degraded and the like."""
    current_revision: Annotated[int, Field(ge=0, le=2**24)] = 0
    """The revision that endpoints are to serve; 0: none yet."""
    variant_count: Annotated[int, Field(ge=0, le=16)] = 0
    """Its number of variants."""
    revisions: Annotated[tuple[RevisionStatus, ...], Field(max_length=20, json_schema_extra=list_map("number"))] = ()
    """The revisions that are kept."""
    publishing_since: Time | None = None
    """When a Job of this portfolio first published to its repository. Of several portfolios that publish the same model
    to one place, the one that did first goes on."""
    job: JobStatus | None = None
    """The current or last pruning run."""
    check: CheckStatus | None = None
    """Without source: the last look into the repository."""
    rollout: RolloutStatus | None = None
    """The current or last rollout."""
    endpoints: EndpointCounts | None = None
    """Counts of the endpoints."""
    address: Address | None = None
    """Where clients reach the model."""
    last_switch_time: Time | None = None
    """When an endpoint last changed its variant."""
    last_failure: Failure | None = None
    """The last failure."""
