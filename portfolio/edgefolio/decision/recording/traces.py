"""Decision traces: inputs and decision of each cycle, one JSON object a line, to be replayed in virtual time.

| line | holds |
|---|---|
| first | ``{"trace": "edgefolio.dev/decision-trace/v1", "note", "profiles", "switching", "state"}`` |
| one per cycle | ``{"now", "observation", "objectives", "decision": {"action", "reason", "target"}}`` |
| after a switch | ``{"now", "switched": variant}`` or ``{"now", "failed": variant, "cause"}`` |
| at the end | ``{"expected": {"at", "action", "reason", "target"}}``, one for each decision change that must come |

``objectives`` may be left out where they are those of the cycle before; ``decision`` is what was decided when the trace
was recorded; a switch without an outcome line is taken to have succeeded at once. This module reads and
writes text only; files are the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edgefolio.decision.encoding import decoded, encoded
from edgefolio.decision.types import Action, Decision, Objectives, Observation, Reason, State, VariantProfile
from edgefolio.errors import UserError
from edgefolio.specification.serving import Switching

TRACE_VERSION = "edgefolio.dev/decision-trace/v1"
#: Earlier versions left out what was the default then, and these have another one now.
_EARLIER_DEFAULTS = {"maxSwitchesPerHour": 12}


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """The part of a decision that a replay compares."""

    action: Action
    reason: Reason
    target: str | None

    @classmethod
    def of(cls, decision: Decision) -> DecisionRecord:
        """The record of ``decision``."""
        return cls(action=decision.action, reason=decision.reason, target=decision.target)

    def __str__(self) -> str:
        return f"{self.action.value} {self.reason.value}" + (f" -> {self.target}" if self.target else "")


@dataclass(frozen=True, kw_only=True)
class ExpectedChange:
    """A decision that differs from the one before it, and when."""

    at: float
    decision: DecisionRecord

    def __str__(self) -> str:
        return f"{self.at:g} s: {self.decision}"


@dataclass(frozen=True, kw_only=True)
class TraceCycle:
    """One recorded cycle: the inputs of :func:`~edgefolio.decision.core.decide`, and its decision."""

    now: float
    observation: Observation
    objectives: Objectives
    recorded: DecisionRecord | None = None


@dataclass(frozen=True, kw_only=True)
class SwitchOutcome:
    """How a switch ended; ``cause`` is ``None`` when it succeeded."""

    now: float
    variant: str
    cause: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A whole trace; ``events`` in the order of the lines."""

    note: str
    profiles: tuple[VariantProfile, ...]
    switching: Switching
    state: State
    events: tuple[TraceCycle | SwitchOutcome, ...]
    expected: tuple[ExpectedChange, ...] = ()

    @property
    def has_outcomes(self) -> bool:
        """Whether the trace holds switch outcomes."""
        return any(isinstance(event, SwitchOutcome) for event in self.events)


def header_line(
    *, profiles: tuple[VariantProfile, ...], switching: Switching, state: State | None = None, note: str = ""
) -> str:
    """The first line of a trace; ``state`` is what the core started from."""
    return _line(
        {
            "trace": TRACE_VERSION,
            "note": note,
            "profiles": encoded(profiles),
            "switching": switching.model_dump(mode="json", by_alias=True),
            "state": encoded(state or State()),
        }
    )


def cycle_line(
    *, now: float, observation: Observation, objectives: Objectives | None, decision: Decision | None = None
) -> str:
    """The line of one cycle; ``objectives=None`` says that they are those of the cycle before."""
    document: dict[str, Any] = {"now": now, "observation": encoded(observation)}
    if objectives is not None:
        document["objectives"] = encoded(objectives)
    if decision is not None:
        document["decision"] = _record_document(DecisionRecord.of(decision))
    return _line(document)


def switched_line(*, now: float, variant: str) -> str:
    """The line after a switch that ended well."""
    return _line({"now": now, "switched": variant})


def failed_line(*, now: float, variant: str, cause: str) -> str:
    """The line after a switch that failed."""
    return _line({"now": now, "failed": variant, "cause": cause})


def parse_trace(lines: Iterable[str], *, name: str = "trace") -> Trace:
    """Read a trace; ``name`` stands in errors. Raises :class:`UserError` that names the line."""
    header: tuple[str, tuple[VariantProfile, ...], Switching, State] | None = None
    events: list[TraceCycle | SwitchOutcome] = []
    expected: list[ExpectedChange] = []
    objectives: Objectives | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            if not isinstance(document, dict):
                raise ValueError("it is not a JSON object")
            if header is None:
                header = _header(document)
                continue
            event = _event(document, objectives)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            fault = f"the field {error} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            raise UserError(
                f"the line is no part of a decision trace: {fault.rstrip('.')}.",
                field=f"{name}, line {number}",
                value=line.strip()[:80],
                remedy="Record the trace again, or mend the line; docs/decision.md describes the format.",
            ) from error
        if isinstance(event, ExpectedChange):
            expected.append(event)
        else:
            events.append(event)
            objectives = event.objectives if isinstance(event, TraceCycle) else objectives
    if header is None:
        raise UserError("the trace is empty.", field=name, remedy="Record one with the agent, or name another file.")
    note, profiles, switching, state = header
    return Trace(
        note=note,
        profiles=profiles,
        switching=switching,
        state=state,
        events=tuple(events),
        expected=tuple(expected),
    )


def _header(document: dict[str, Any]) -> tuple[str, tuple[VariantProfile, ...], Switching, State]:
    if document.get("trace") != TRACE_VERSION:
        raise ValueError(f"the first line must hold trace: {TRACE_VERSION!r}, not {document.get('trace')!r}")
    try:
        switching = Switching.model_validate(_EARLIER_DEFAULTS | document.get("switching", {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"switching.{where}: {first['msg']}") from error
    profiles = tuple(decoded(VariantProfile, entry) for entry in document["profiles"])
    return str(document.get("note", "")), profiles, switching, decoded(State, document.get("state", {}))


def _event(document: dict[str, Any], objectives: Objectives | None) -> TraceCycle | SwitchOutcome | ExpectedChange:
    if "expected" in document:
        entry = document["expected"]
        return ExpectedChange(at=float(entry["at"]), decision=_record(entry))
    now = float(document["now"])
    if "switched" in document:
        return SwitchOutcome(now=now, variant=str(document["switched"]))
    if "failed" in document:
        return SwitchOutcome(now=now, variant=str(document["failed"]), cause=str(document.get("cause", "unknown")))
    if "objectives" in document:
        objectives = decoded(Objectives, document["objectives"])
    if objectives is None:
        raise ValueError("the first cycle must hold objectives")
    return TraceCycle(
        now=now,
        observation=decoded(Observation, document["observation"]),
        objectives=objectives,
        recorded=_record(document["decision"]) if "decision" in document else None,
    )


def _record(document: dict[str, Any]) -> DecisionRecord:
    target = document.get("target")
    return DecisionRecord(
        action=Action(document["action"]),
        reason=Reason(document["reason"]),
        target=None if target is None else str(target),
    )


def _record_document(record: DecisionRecord) -> dict[str, Any]:
    document: dict[str, Any] = {"action": record.action.value, "reason": record.reason.value}
    if record.target is not None:
        document["target"] = record.target
    return document


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
