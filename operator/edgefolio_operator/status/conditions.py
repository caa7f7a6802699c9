"""The conditions of a ModelPortfolio, as kstatus reads them.

``Ready`` is the summary. ``Reconciling`` is true for the first pruning run and a rollout; not for a switch, nor for a
remake while an older revision serves (that is ``Making``). ``Stalled`` is an error that waits for the user.
``ObjectivesMet``, ``ObjectivesAccepted`` and ``Degraded`` inform and change nothing, like those of
:mod:`.informational_conditions`. All are there from the first reconciliation on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgefolio.specification.conditions import Condition, ConditionValue, with_condition
from edgefolio.specification.portfolio_status import EndpointCounts, RolloutStatus
from edgefolio_operator import reasons
from edgefolio_operator.messages import listed


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Inputs of the conditions.

    ``counts`` is ``None`` until the endpoints were counted for the first time, ``endpoints_settled`` false while more
    of them are expected. ``terminal`` is reason and message of an error that the user must fix. ``objectives_unknown``
    endpoints have not said whether they meet theirs; ``silent`` ones say nothing any more, ``unknown_to_api`` of these
    because their account was made anew. ``repository``: reason and message of what is wrong with a repository that is
    followed; it may pass, and is looked at again. ``absent`` pods are wanted and have no endpoint that could be
    counted; ``workload`` is reason and message why pods do not exist or do not start.
    """

    generation: int
    making: bool = False
    revision: int = 0
    waits_for_others: bool = False
    terminal: tuple[str, str] | None = None
    repository: tuple[str, str] | None = None
    rollout: RolloutStatus | None = None
    counts: EndpointCounts | None = None
    endpoints_settled: bool = True
    objectives_unknown: int = 0
    silent: int = 0
    unknown_to_api: int = 0
    min_available_percent: int = 90
    issues: tuple[str, ...] = ()
    absent: int = 0
    workload: tuple[str, str] | None = None
    informational: Mapping[str, ConditionValue] = field(default_factory=dict)


def conditions_of(facts: Facts, *, before: Sequence[Condition], now: float) -> tuple[Condition, ...]:
    """The conditions now; one whose status is as ``before`` keeps the time of its last change."""
    found = {
        "Ready": _ready(facts),
        "Reconciling": _reconciling(facts),
        "Stalled": ("True", *facts.terminal) if facts.terminal else _quiet(reasons.NOTHING_TO_MEND),
        "Making": _yes(reasons.JOB_RUNNING, "A Job makes a revision.")
        if facts.making
        else _quiet(reasons.NO_JOB_RUNNING),
        "ObjectivesMet": _objectives_met(facts),
        "ObjectivesAccepted": _no(reasons.OBJECTIVE_IGNORED, "; ".join(facts.issues))
        if facts.issues
        else _yes(reasons.ACCEPTED, ""),
        "Degraded": _degraded(facts),
        **facts.informational,
    }
    conditions = tuple(condition for condition in before if condition.type in found)
    for kind, (status, reason, message) in found.items():
        conditions = with_condition(
            conditions,
            type=kind,
            status=status,
            reason=reason,
            message=message,
            observed_generation=facts.generation,
            now=now,
        )
    return conditions


def needed_endpoints(total: int, min_available_percent: int) -> int:
    """How many of ``total`` endpoints must be available."""
    return math.ceil(total * min_available_percent / 100)


def left_behind(rollout: RolloutStatus) -> list[str]:
    """The endpoints that a rollout left on the revision before, each with the reason."""
    return [f"{entry.endpoint} ({entry.reason})" for entry in rollout.failures or () if entry.left_behind]


def _ready(facts: Facts) -> ConditionValue:
    counts = facts.counts
    if facts.terminal and facts.terminal[0] == reasons.RESOURCE_CONFLICT:
        # Whatever the pods say: clients are led to what somebody else made.
        return _no(*facts.terminal)
    if not facts.revision:
        if facts.terminal:
            return _no(*facts.terminal)
        if facts.workload and facts.workload[0] == reasons.SECRET_MISSING:
            return _no(*facts.workload)
        if facts.making:
            return _no(reasons.MAKING, "The first revision is being made.")
        if facts.repository:
            return _no(*facts.repository)
        if facts.waits_for_others:
            return _no(reasons.WAITING_FOR_REVISION, "No revision is published in the repository yet.")
        return _no(reasons.NO_REVISION, "No revision is published yet.")
    if counts is None:
        return "Unknown", reasons.ENDPOINTS_UNKNOWN, "The endpoints were not counted yet."
    total = counts.total + facts.absent
    needed = needed_endpoints(total, facts.min_available_percent)
    serving = f"{counts.available} of {total} endpoints serve a verified variant"
    if counts.available < needed:
        reason, why = facts.workload or (reasons.ENDPOINTS_UNAVAILABLE, _silence(facts))
        return _no(reason, f"{serving}; {needed} are needed. {why}".strip())
    if total == 0:
        if not facts.endpoints_settled:
            return _no(reasons.ENDPOINTS_STARTING, "The endpoints are starting.")
        return _yes(reasons.NO_ENDPOINTS, f"Revision {facts.revision} is published; no node is asked to serve it.")
    return _yes(reasons.SERVING, f"{serving}.")


def _reconciling(facts: Facts) -> ConditionValue:
    if facts.terminal and not facts.revision:
        return _quiet(reasons.STALLED)
    if not facts.revision:
        return _yes(
            reasons.FIRST_MAKING if facts.making else reasons.WAITING_FOR_REVISION, "No revision is published yet."
        )
    rollout = facts.rollout
    if rollout is not None and rollout.phase == "Progressing":
        return _yes(reasons.ROLLING_OUT, f"Endpoints go to revision {rollout.revision}.")
    if rollout is not None and rollout.reason == reasons.WAITING_FOR_APPROVAL:
        return _yes(reasons.WAITING_FOR_APPROVAL, rollout.message)
    if not facts.endpoints_settled:
        return _yes(reasons.ENDPOINTS_STARTING, "Endpoints are starting.")
    return _quiet(reasons.SETTLED)


def _objectives_met(facts: Facts) -> ConditionValue:
    counts = facts.counts
    if counts is None or not counts.total:
        return "Unknown", reasons.NO_ENDPOINTS, ""
    missed = counts.total - counts.meeting_objectives - facts.objectives_unknown
    text = f"{counts.meeting_objectives} of {counts.total} endpoints meet their objectives"
    if missed:
        return _no(reasons.OBJECTIVES_NOT_MET, f"{text}, {missed} do not.")
    if facts.objectives_unknown:
        return "Unknown", reasons.MISSING_METRICS, f"{text}, of {facts.objectives_unknown} it is not known."
    return _yes(reasons.OBJECTIVES_MET, f"{text}.")


def _degraded(facts: Facts) -> ConditionValue:
    counts, rollout = facts.counts, facts.rollout
    is_waiting = rollout is not None and rollout.reason == reasons.WAITING_FOR_APPROVAL
    if rollout is not None and rollout.phase in ("RolledBack", "Paused") and not is_waiting:
        return _yes(reasons.ROLLOUT_PHASES[rollout.phase], rollout.message)
    if facts.terminal and facts.revision:
        return _yes(reasons.MAKING_FAILED, f"Revision {facts.revision} serves on. {facts.terminal[1]}")
    if facts.repository and facts.revision:
        return _yes(facts.repository[0], f"Revision {facts.revision} serves on. {facts.repository[1]}")
    if facts.workload:
        return _yes(*facts.workload)
    if rollout is not None and (left := left_behind(rollout)):
        text = (
            f"{listed(left)} could not serve revision {rollout.revision} and stay on the one before; the others go on."
        )
        return _yes(reasons.ENDPOINTS_LEFT_BEHIND, f"{text} They are tried again.")
    if counts is not None and counts.available < counts.total:
        return _yes(
            reasons.ENDPOINTS_UNAVAILABLE,
            f"{counts.total - counts.available} of {counts.total} endpoints do not serve. {_silence(facts)}".strip(),
        )
    return _quiet(reasons.AS_EXPECTED)


def _silence(facts: Facts) -> str:
    if not facts.silent:
        return ""
    text = f"Of {facts.silent} of them the pod is ready and the agent is not heard any more, so they may serve on: "
    if facts.unknown_to_api:
        return text + (
            f"{facts.unknown_to_api} of these pods are older than the agents' account, so their tokens are void. "
            "Delete these pods, or wait until the kubelet asks for new tokens, within 48 minutes."
        )
    return text + "look at the node's link, and at the agent's token and role."


def _yes(reason: str, message: str) -> ConditionValue:
    return "True", reason, message


def _no(reason: str, message: str) -> ConditionValue:
    return "False", reason, message


def _quiet(reason: str) -> ConditionValue:
    return "False", reason, ""
