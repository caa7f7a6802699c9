"""The ``ModelEndpoint`` resource: one Triton pod that serves a model.

Users read it. The operator alone writes ``spec`` (its decision), the agent of that very pod alone writes ``status``
(its report): all traffic from the edge goes outward, nothing ever connects to a pod.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
from edgefolio.specification.making import Uri
from edgefolio.specification.objectives import ObjectivesSpecification
from edgefolio.specification.portfolio_status import Bytes, ClassName, ProcessorReport
from edgefolio.specification.resource import ObjectMeta
from edgefolio.specification.serving import Switching
from edgefolio.specification.validation.base import DecimalString, Specification
from edgefolio.specification.validation.cel import WRITTEN_WHOLE, list_map, rules

#: A mean over requests; NaN, for no requests, is stored as 0.
MeanDecimal = Annotated[DecimalString, "mean"]
#: A factor in percent: 1.25 is 125.
FactorPercent = Annotated[int, Field(ge=1, le=1_000_000), "factor"]
#: A count since the server started: what every reader of JSON holds exactly.
RequestCount = Annotated[int, Field(ge=0, le=2**53)]
Epoch = Annotated[int, Field(ge=0, le=2**53)]


class PortfolioReference(Specification):
    """A ModelPortfolio in the same namespace."""

    name: ObjectName
    """Its name."""


class RevisionReference(Specification):
    """One revision, told by the digest of its manifest."""

    number: RevisionNumber
    """Its number."""
    manifest_digest: Sha256
    """sha256 of its manifest; bytes that it does not vouch for are never served."""


class ProfileOrder(Specification):
    """The profile that operator and agent predict with."""

    model_config = ConfigDict(
        json_schema_extra=rules(("has(self.name) == has(self.digest)", "name and digest go together"))
    )

    name: ClassName | None = None
    """The class of processors that it was measured on; absent: the manifest's own profile."""
    digest: Sha256 | None = None
    """sha256 of the profile; the agent decides with no other bytes, but with the manifest's own profile."""
    evidence: Message = ""
    """Why this one, and what it does not know of the node, for people."""


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class EndpointSpecification(Specification):
    """Desired state of one endpoint: the operator's order."""

    model_config = ConfigDict(
        json_schema_extra=WRITTEN_WHOLE
        | rules(
            ("self.epoch >= oldSelf.epoch", "a newer operator has written this endpoint"),
            ("self.podName == oldSelf.podName", "podName cannot be changed"),
            ("self.portfolioRef == oldSelf.portfolioRef", "portfolioRef cannot be changed"),
            ("!has(self.targetVariant) || has(self.revision)", "targetVariant needs revision"),
        )
    )

    portfolio_ref: PortfolioReference
    """The portfolio it belongs to."""
    pod_name: ObjectName
    """Its pod."""
    node_name: ObjectName
    """The node of its pod."""
    model_name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name under which clients ask for the model."""
    repository_uri: Uri
    """Where variants are fetched from."""
    revision: RevisionReference | None = None
    """The revision to serve; absent: none is published yet."""
    target_variant: VariantName | None = None
    """The variant to serve; absent: the agent begins with the smallest."""
    pinned: bool = False
    """Serve targetVariant whatever happens; the agent does not decide for itself either."""
    descend_at_percent: Annotated[int, Field(ge=100, le=400)] | None = None
    """An order in advance: as soon as p95 is surely at least this much of the objective, the agent goes down to its
    standby and reports it, and the operator decides from there. Absent: the agent waits for the next order."""
    profile: ProfileOrder | None = None
    """The profile to predict with, once the agent has reported its processor; absent: the manifest's own."""
    # Kept for stored objects: a reason changes more often than an order, and here each change was a new generation.
    reason: ReasonWord | None = None
    """No longer written: the annotation edgefolio.dev/decision-reason says why this variant, or why no other."""
    # The definition has no default for it: the API server would write an empty one into each order.
    message: Message = Field(default="", json_schema_extra=_without_default)
    """No longer written: see the annotation edgefolio.dev/decision-message."""
    objectives: ObjectivesSpecification = ObjectivesSpecification()
    """Effective objectives, merged from all levels."""
    switching: Switching = Switching()
    """Switching settings, also used while the agent is cut off."""
    epoch: Epoch = 0
    """Fencing epoch of the leader: agents refuse orders with a lower one."""


class TrafficReport(StatusRecord):
    """Requests of the last seconds to the active variant."""

    window_seconds: DecimalString
    """Length of the window."""
    requests: RequestCount
    """Requests answered."""
    failures: RequestCount = 0
    """Requests failed."""
    executions: RequestCount = 0
    """Model executions."""
    mean_compute_milliseconds: MeanDecimal
    """Mean time in the model."""
    mean_queue_milliseconds: MeanDecimal
    """Mean time waiting for it."""
    mean_total_milliseconds: MeanDecimal
    """Mean time in the server."""
    in_flight: MeanDecimal
    """Mean number of requests inside the server."""
    # Kept for stored objects; no longer measured, since nothing rested on it.
    batch: DecimalString = "1"
    """Mean number of samples of a request."""
    p95_milliseconds: DecimalString | None = None
    """95 % of requests were answered within this time."""
    age_seconds: DecimalString = "0"
    """Age at the time of the report."""


class ProbeReport(StatusRecord):
    """The agent's own request while there is no traffic."""

    variant: VariantName
    """The variant that answered."""
    compute_milliseconds: DecimalString
    """Time in the model."""
    age_seconds: DecimalString = "0"
    """Age at the time of the report."""


class MemoryReport(StatusRecord):
    """Memory of the server and of its node; what is absent is unknown."""

    limit_bytes: Bytes | None = None
    """Memory limit of the server."""
    working_set_bytes: Bytes | None = None
    """Working set of the server."""
    node_available_bytes: Bytes | None = None
    """Memory available on the node."""
    shared_memory_bytes: Bytes | None = None
    """What one more version takes of shared memory for requests, beside its profile."""
    age_seconds: DecimalString = "0"
    """Age at the time of the report."""


class ObservationReport(StatusRecord):
    """The agent's observation of its server.

    It is written when it changes what a decision would rest on, and at the latest at ``validUntil``: until then, no
    news means no change.
    """

    time: Time
    """When it was observed."""
    valid_until: Time
    """The agent reports again by then; afterwards this is stale."""
    server: Literal["Serving", "Dead", "Unknown"]
    """State of the server, found by inference."""
    # Kept for stored objects; one instance computes in every server that an agent manages.
    instances: Annotated[int, Field(ge=1, le=1024)] = 1
    """Model instances that compute at the same time."""
    traffic: TrafficReport | None = None
    """Requests; absent: none lately."""
    probe: ProbeReport | None = None
    """The agent's own request."""
    memory: MemoryReport | None = None
    """Memory."""


class QuarantineReport(StatusRecord):
    """A variant that failed to load or to answer its probe."""

    variant: VariantName
    """The variant."""
    until: Time
    """Not tried again before this."""
    failures: Annotated[int, Field(ge=1, le=1_000_000)]
    """Failures in a row."""
    cause: Annotated[str, Field(max_length=500)] = ""
    """What happened."""


class UpgradeBackoffReport(StatusRecord):
    """A variant that had to be left soon after it was taken on the way up."""

    variant: VariantName
    """The variant."""
    until: Time
    """Not taken again before this."""
    bounces: Annotated[int, Field(ge=1, le=1_000_000)]
    """How often that happened in a row."""


class OwnFactorReport(StatusRecord):
    """How much more, or less, than the others this node slows a variant; learned from probes of the standby."""

    variant: VariantName
    """The variant."""
    percent: FactorPercent = 100
    """Its own part of the compute time here against the profile."""


class DescentReport(StatusRecord):
    """A step down to what was resident."""

    variant: VariantName
    """The variant that was left, and is to be taken again."""
    at: Time
    """When that was."""


class DecisionReport(StatusRecord):
    """The last decision and what must be remembered for the next, also over restarts."""

    action: Literal["Hold", "Switch"]
    """Hold or Switch."""
    reason: ReasonWord
    """Why, in one word."""
    message: Message = ""
    """Why, for people, with the figures."""
    decided_by: Literal["Operator", "Agent"]
    """Who decided: the agent does while it is cut off."""
    objectives_met: bool | None = None
    """Whether the objectives are met; absent: unknown."""
    node_factor_percent: FactorPercent = 100
    """Compute time here against the profile."""
    transport_milliseconds: DecimalString = "0"
    """Time a request takes besides computing."""
    arrival_variability: DecimalString = "1"
    """Squared coefficient of variation of the gaps between requests."""
    arrival_rate: DecimalString | None = None
    """Requests per second last seen that were not held back by the server."""
    last_switch_time: Time | None = None
    """When the variant last changed."""
    recent_switch_times: Annotated[tuple[Time, ...], Field(max_length=16)] = ()
    """Changes of the last hour, oldest first."""
    quarantined: Annotated[
        tuple[QuarantineReport, ...], Field(max_length=16, json_schema_extra=list_map("variant"))
    ] = ()
    """Variants that are not tried for now."""
    upgraded_variant: VariantName | None = None
    """The last variant that was taken on the way up."""
    upgraded_time: Time | None = None
    """When that was."""
    upgrade_backoffs: Annotated[
        tuple[UpgradeBackoffReport, ...], Field(max_length=16, json_schema_extra=list_map("variant"))
    ] = ()
    """Variants that are not taken on the way up for now."""
    own_factors: Annotated[
        tuple[OwnFactorReport, ...], Field(max_length=16, json_schema_extra=list_map("variant"))
    ] = ()
    """Variants that this node slows by another factor than the rest, as far as that was measured."""
    descent: DescentReport | None = None
    """The last step down to a standby: the way back is shorter than any other step up."""


class SwitchReport(StatusRecord):
    """One change of the variant that serves."""

    time: Time
    """When the agent saw the new variant serve."""
    from_variant: VariantName | None = None
    """The variant before; absent: none served before."""
    from_revision: RevisionNumber | None = None
    """Its revision."""
    to_variant: VariantName
    """The variant that serves since."""
    to_revision: RevisionNumber
    """Its revision."""
    reason: ReasonWord
    """Why, in one word: the reason of the order, or of the agent's own decision."""
    decided_by: Literal["Operator", "Agent"]
    """Who decided: the agent does while it is cut off."""


class EndpointStatus(StatusRecord):
    """What the agent reports of its server."""

    model_config = ConfigDict(json_schema_extra=WRITTEN_WHOLE)

    observed_generation: Generation = 0
    """Generation of the spec that the agent acts on."""
    observed_epoch: Epoch = 0
    """Highest epoch that it has seen; it obeys no lower one."""
    active_variant: VariantName | None = None
    """The variant that serves."""
    active_revision: RevisionNumber | None = None
    """Its revision."""
    resident_variants: Annotated[tuple[VariantName, ...], Field(max_length=8)] = ()
    """Variants in memory."""
    processor: ProcessorReport | None = None
    """The processor of its node; absent: an agent of before does not say."""
    profile_digest: Sha256 | None = None
    """The profile that it has and predicts with; absent: the manifest's own."""
    observation: ObservationReport | None = None
    """What it observed."""
    decision: DecisionReport | None = None
    """What was decided last, and what is remembered."""
    switches: Annotated[tuple[SwitchReport, ...], Field(max_length=16)] = ()
    """The last changes of the variant that serves, oldest first; they outlive restarts of the agent and of Triton."""
    last_failure: Failure | None = None
    """The last thing that went wrong."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=list_map("type"))] = ()
    """Ready, Synced, ObjectivesMet, Autonomous and the like."""


class ModelEndpoint(BaseModel):
    """One Triton pod that serves a model: ``spec`` is the operator's decision, ``status`` the agent's report."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Annotated[Literal["edgefolio.dev/v1alpha1"], Field(alias="apiVersion")]
    kind: Literal["ModelEndpoint"]
    metadata: ObjectMeta
    spec: EndpointSpecification
    status: EndpointStatus | None = None
