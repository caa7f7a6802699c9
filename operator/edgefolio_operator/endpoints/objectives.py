"""Objectives of one endpoint, resolved over several levels: each field is taken from the nearest level that sets it.

pod annotation > node annotation > objectiveOverrides > spec > namespace annotation. An annotation that cannot be read
is an issue, and the next level's value is used. ``annotationPolicy`` says what annotations on pods and nodes may do:
``Override`` anything, ``TightenOnly`` ask for more than the spec, ``Ignore`` nothing. The namespace's annotation is a
default below the spec, and stays one; ``Ignore`` ignores it as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from edgefolio.specification.objectives import ObjectiveOverride, ObjectivesSpecification
from edgefolio.specification.validation.base import bytes_of
from edgefolio_operator import reasons
from edgefolio_operator.labels import OBJECTIVE_PREFIX

#: Annotation key after the prefix -> field of the objectives.
ANNOTATIONS = {
    "latency-p95-ms": "latency_p95_milliseconds",
    "network-latency-ms": "network_latency_milliseconds",
    "min-accuracy-percent": "min_accuracy_percent",
    "max-memory": "max_memory",
}
#: Fields where a larger value asks for more; in all others a smaller one does.
_LARGER_IS_TIGHTER = frozenset({"min_accuracy_percent", "network_latency_milliseconds"})


class Level(StrEnum):
    """Where a value comes from, nearest first."""

    POD = "Pod"
    NODE = "Node"
    OVERRIDE = "Override"
    SPEC = "Spec"
    NAMESPACE = "Namespace"


@dataclass(frozen=True, kw_only=True)
class Issue:
    """A rejected request: ``reason`` in one word, ``message`` for people."""

    level: Level
    key: str
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The objectives of one endpoint, and rejected requests."""

    objectives: ObjectivesSpecification
    issues: tuple[Issue, ...]


@dataclass(frozen=True, kw_only=True)
class _Value:
    level: Level
    value: Any


def resolve(
    *,
    spec: ObjectivesSpecification,
    overrides: tuple[ObjectiveOverride, ...] = (),
    annotation_policy: str = "Override",
    pod_annotations: Mapping[str, str] | None = None,
    node_annotations: Mapping[str, str] | None = None,
    node_labels: Mapping[str, str] | None = None,
    namespace_annotations: Mapping[str, str] | None = None,
) -> Resolved:
    """The objectives that hold for an endpoint. Never raises, whatever the annotations say."""
    issues: list[Issue] = []
    annotated = {
        Level.POD: pod_annotations or {},
        Level.NODE: node_annotations or {},
        Level.NAMESPACE: namespace_annotations or {},
    }
    levels: dict[Level, dict[str, Any]] = {level: {} for level in Level}
    if annotation_policy != "Ignore":
        for level, annotations in annotated.items():
            levels[level] = dict(_read(annotations, level, issues))
    override = matching_override(overrides, node_labels or {})
    levels[Level.OVERRIDE] = _set_fields(override.objectives) if override else {}
    levels[Level.SPEC] = _set_fields(spec)

    chosen: dict[str, _Value] = {}
    for field in ObjectivesSpecification.model_fields:
        below: _Value | None = None
        for level in reversed(Level):
            if field in levels[level]:
                value = _Value(level=level, value=levels[level][field])
                loosens = below is not None and annotation_policy == "TightenOnly" and _loosens(field, value, below)
                if loosens and level in (Level.POD, Level.NODE):
                    issues.append(_would_loosen(field, value, below))
                else:
                    below = value
        if below is not None:
            chosen[field] = below
    return _within_latency(chosen, issues)


def matching_override(
    overrides: tuple[ObjectiveOverride, ...], node_labels: Mapping[str, str]
) -> ObjectiveOverride | None:
    """The first override whose labels the node carries."""
    return next((entry for entry in overrides if entry.node_selector.items() <= node_labels.items()), None)


def _read(annotations: Mapping[str, str], level: Level, issues: list[Issue]) -> Iterator[tuple[str, Any]]:
    for key, text in sorted(annotations.items()):
        if not key.startswith(OBJECTIVE_PREFIX):
            continue
        field = ANNOTATIONS.get(key.removeprefix(OBJECTIVE_PREFIX))
        if field is None:
            known = ", ".join(ANNOTATIONS)
            issues.append(
                Issue(level=level, key=key, reason=reasons.UNKNOWN_OBJECTIVE, message=f"{key} is not one of {known}.")
            )
            continue
        try:
            yield field, _parsed(field, text)
        except ValueError as error:
            message = f"{key}: {_shortened(text)!r} {error}; the next level's value is used."
            issues.append(Issue(level=level, key=key, reason=reasons.MALFORMED_OBJECTIVE, message=message))


def _parsed(field: str, text: str) -> Any:
    """``text`` as the value of ``field``. Raises ValueError with the problem."""
    value: Any = text.strip()
    if ObjectivesSpecification.model_fields[field].annotation in (int, int | None):
        if not (value.isascii() and value.isdigit()):
            raise ValueError("is not a whole number")
        value = int(value[:20])
    try:
        return getattr(ObjectivesSpecification.model_validate({field: value}), field)
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")) from error


def _set_fields(objectives: ObjectivesSpecification) -> dict[str, Any]:
    return {
        field: getattr(objectives, field)
        for field in objectives.model_fields_set
        if getattr(objectives, field) is not None
    }


def _loosens(field: str, value: _Value, below: _Value) -> bool:
    asked, floor = _number(field, value.value), _number(field, below.value)
    return asked < floor if field in _LARGER_IS_TIGHTER else asked > floor


def _number(field: str, value: Any) -> Decimal:
    return Decimal(bytes_of(value)) if field == "max_memory" else Decimal(value)


def _would_loosen(field: str, value: _Value, below: _Value | None) -> Issue:
    assert below is not None
    key = OBJECTIVE_PREFIX + next(key for key, named in ANNOTATIONS.items() if named == field)
    message = (
        f"{key}: {value.value} asks for less than {below.value} ({below.level}), "
        "which annotationPolicy TightenOnly does not allow."
    )
    return Issue(level=value.level, key=key, reason=reasons.OBJECTIVE_NOT_TIGHTENED, message=message)


def _within_latency(chosen: dict[str, _Value], issues: list[Issue]) -> Resolved:
    """Check that latency and its network part, which may come from two levels, are consistent."""
    latency, network = chosen.get("latency_p95_milliseconds"), chosen.get("network_latency_milliseconds")
    if latency is not None and network is not None and network.value >= latency.value:
        nearer = min(latency, network, key=lambda entry: list(Level).index(entry.level))
        message = (
            f"A network latency of {network.value} ms ({network.level}) leaves nothing of "
            f"{latency.value} ms ({latency.level}); it is not subtracted."
        )
        issues.append(
            Issue(level=nearer.level, key="network-latency-ms", reason=reasons.MALFORMED_OBJECTIVE, message=message)
        )
        del chosen["network_latency_milliseconds"]
    return Resolved(
        objectives=ObjectivesSpecification.model_validate({field: entry.value for field, entry in chosen.items()}),
        issues=tuple(issues),
    )


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
