"""Status types that both resources share: times, conditions, failures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgefolio.specification.validation.base import resource_name

#: The first and the last instant that is believed: seconds since the epoch of 1970 and of the year 2200.
_EARLIEST, _LATEST = 0.0, 7_258_118_400.0
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
#: What is written, which the definitions insist on. Kubernetes' own check of ``date-time`` takes the year 0, offsets
#: of 99 hours and ``x1Z`` for a fraction (k8s.io/kube-openapi as of Kubernetes 1.34), at which Python's reader raises.
TIME_PATTERN = r"^(19[7-9][0-9]|2[01][0-9]{2})-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


def _check_time(text: str) -> str:
    time_seconds(text)
    return text


#: An instant as Kubernetes writes it, of the years 1970 to 2199: 2026-01-31T12:00:00Z.
Time = Annotated[
    str,
    Field(max_length=32, json_schema_extra={"format": "date-time", "pattern": TIME_PATTERN}),
    AfterValidator(_check_time),
]
#: A condition's reason, in CamelCase.
ReasonWord = Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=128)]
Message = Annotated[str, Field(max_length=1024)]
Generation = Annotated[int, Field(ge=0, le=2**53)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
ConditionStatus = Literal["True", "False", "Unknown"]
#: Status, reason and message of a condition.
ConditionValue = tuple[ConditionStatus, str, str]
#: Name of a variant, as in the manifest.
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", max_length=63)]
RevisionNumber = Annotated[int, Field(ge=1, le=2**24)]


class StatusRecord(BaseModel):
    """Frozen, camelCase outside; unknown fields are ignored, since another version may have written them."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=resource_name,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class Condition(StatusRecord):
    """One aspect of the state, as Kubernetes defines it."""

    type: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=63)]
    """Name of the condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: Generation | None = None
    """metadata.generation that the condition was set from."""
    last_transition_time: Time
    """When status last changed."""
    reason: ReasonWord
    """Reason, in CamelCase."""
    message: Message = ""
    """Explanation for people."""


def truncated(message: str) -> str:
    """``message`` as long as a condition, an Event or a status may hold it."""
    return message if len(message) <= 1024 else message[:1023] + "…"


def with_condition(
    conditions: Sequence[Condition],
    *,
    type: str,
    status: ConditionStatus,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
    now: float,
) -> tuple[Condition, ...]:
    """``conditions`` with this one added or replaced; the time of its last transition stays while its status does."""
    earlier = next((each for each in conditions if each.type == type), None)
    kept = earlier is not None and earlier.status == status
    condition = Condition(
        type=type,
        status=status,
        observed_generation=observed_generation,
        last_transition_time=earlier.last_transition_time if earlier is not None and kept else time_text(now),
        reason=reason,
        message=truncated(message),
    )
    if earlier is None:
        return (*conditions, condition)
    return tuple(condition if each.type == type else each for each in conditions)


class Failure(StatusRecord):
    """The last failure, with its time; kept after recovery."""

    location: Annotated[str, Field(max_length=253)] = ""
    """Origin: a field of the resource, a pod or a file."""
    reason: ReasonWord
    """Failure reason, in CamelCase."""
    message: Message = ""
    """Description for people, with the remedy."""
    revision: RevisionNumber | None = None
    """The revision concerned."""
    variant: VariantName | None = None
    """The variant concerned."""
    time: Time
    """Time of the failure."""


def time_text(seconds: float) -> str:
    """Seconds since the epoch as Kubernetes writes an instant: ``time_text(0) == "1970-01-01T00:00:00Z"``.

    Outside the years that are believed it is the nearest instant in them.
    """
    believed = min(max(seconds, _EARLIEST), _LATEST - 1)
    return datetime.fromtimestamp(int(believed), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_seconds(text: str) -> float:
    """Seconds since the epoch of an instant as Kubernetes writes it. Raises ValueError for anything else."""
    if _INSTANT.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is no instant like 2026-01-31T12:00:00Z")
    seconds = datetime.fromisoformat(text).timestamp()
    if not _EARLIEST <= seconds < _LATEST:
        raise ValueError(f"{text[:40]!r} is not within the years 1970 to 2199")
    return seconds


def readable_time(text: Any) -> float | None:
    """:func:`time_seconds` of a field that anything may stand in; ``None`` if it holds no instant."""
    try:
        return time_seconds(text) if isinstance(text, str) else None
    except ValueError:
        return None
