"""Events of one reconciliation: revisions, rollouts, failures, conflicts, switches, ignored annotations. Pure.

Only differences from the stored status and specs are events: a restarted operator repeats none.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgefolio.decision.types import Reason
from edgefolio.specification.conditions import Condition, truncated
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio_operator import reasons
from edgefolio_operator.endpoints.assignment import Assignment
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.endpoints.objectives import Issue
from edgefolio_operator.kube.event_recorder import Event
from edgefolio_operator.revisions.profiling import CONDITION as PROFILES_MEASURED
from edgefolio_operator.revisions.pruning_job import PruningJobPlan
from edgefolio_operator.status.agent_conditions import AGENT_CONDITIONS
from edgefolio_operator.status.conditions import left_behind
from edgefolio_operator.status.repository_condition import CONDITION as REPOSITORY_READABLE
from edgefolio_operator.status.security_conditions import KNOWN_VULNERABILITIES

#: Reasons of a hold that produce no event (transient or healthy).
_WITHOUT_EVENT = frozenset(
    {
        Reason.OBJECTIVES_MET,
        Reason.SETTLING,
        Reason.VIOLATION_TOO_SHORT,
        Reason.CALM_TOO_SHORT,
        Reason.MIN_DWELL,
        Reason.DEAD_BAND,
    }
)
_WARNINGS = frozenset(
    {
        Reason.OBJECTIVES_NOT_MET,
        Reason.MISSING_METRICS,
        Reason.STALE_METRICS,
        Reason.SWITCH_BUDGET_SPENT,
        Reason.INSUFFICIENT_SWITCH_MEMORY,
        Reason.ALL_QUARANTINED,
    }
)
_TOLD_CONDITIONS = {
    "Conflicted": "True",
    "Compatible": "False",
    REPOSITORY_READABLE: "False",
    KNOWN_VULNERABILITIES: "True",
    "PublisherCredentialsOnNodes": "True",
    PROFILES_MEASURED: "False",
    "ReportsAccepted": "False",
    "ClocksAgree": "False",
    "OrdersAccepted": "False",
}
#: Conditions whose words, or their change, are an agent's.
_OF_AGENTS = frozenset({*AGENT_CONDITIONS, REPOSITORY_READABLE, KNOWN_VULNERABILITIES})


def events_of(
    before: PortfolioStatus, after: PortfolioStatus, members: Sequence[Endpoint], assignments: Sequence[Assignment]
) -> tuple[Event, ...]:
    """The events of one cycle: revisions, rollouts, failures, conflicts, switches, ignored annotations."""
    events = []
    known = {entry.number for entry in before.revisions}
    for entry in after.revisions:
        if entry.number not in known:
            text = f"Revision {entry.number} with {len(entry.variants)} variants is published."
            events.append(Event(reason=reasons.PUBLISHED, message=text))
    old, new = before.rollout, after.rollout
    if new is not None and (old is None or (old.revision, old.phase) != (new.revision, new.phase)):
        warning = new.phase in ("RolledBack", "Paused") and new.reason != reasons.WAITING_FOR_APPROVAL
        message = new.message or f"The rollout of revision {new.revision} is {new.phase.lower()}."
        events.append(Event(reason=reasons.ROLLOUT_PHASES[new.phase], message=message, warning=warning))
    behind = left_behind(new) if new is not None else []
    for name in [name for name in behind if old is None or name not in left_behind(old)]:
        text = f"{name} could not serve revision {new.revision if new else 0} and stays on the one before for now."
        events.append(Event(reason=reasons.ENDPOINTS_LEFT_BEHIND, message=text, warning=True))
    if after.last_failure != before.last_failure and after.last_failure is not None:
        events.append(Event(reason=after.last_failure.reason, message=after.last_failure.message, warning=True))
    events += _of_conditions(before, after)
    news = _new_issues(before, after, assignments)
    told = dict.fromkeys((issue.reason, issue.message) for issues in news for issue in issues)
    events += [Event(reason=reason, message=truncated(message), warning=True) for reason, message in told]
    for endpoint, assignment, issues in zip(members, assignments, news, strict=True):
        events += _of_decision(endpoint, assignment)
        name = assignment.spec.pod_name
        events += [
            Event(reason=issue.reason, message=truncated(issue.message), warning=True, endpoint=name)
            for issue in issues
        ]
    return tuple(events)


def events_of_pruning_job(making: PruningJobPlan) -> tuple[Event, ...]:
    """Events of a pruning run's Jobs."""
    if not making.lost:
        return ()
    text = f"The node of pod {making.lost} does not answer; the Job is run again, and goes on where its work is kept."
    return (Event(reason=reasons.POD_LOST, message=text, warning=True),)


def _of_conditions(before: PortfolioStatus, after: PortfolioStatus) -> list[Event]:
    old = {condition.type: condition for condition in before.conditions}
    return [
        Event(
            reason=condition.reason,
            message=condition.message,
            warning=True,
            is_of_agents=condition.type in _OF_AGENTS,
        )
        for condition in after.conditions
        if _TOLD_CONDITIONS.get(condition.type) == condition.status
        and (condition.type not in old or old[condition.type].message != condition.message)
    ]


def _of_decision(endpoint: Endpoint, assignment: Assignment) -> list[Event]:
    """Events of a new target, on portfolio and endpoint, or of a new hold, on the endpoint alone."""
    spec, why, stored = assignment.spec, assignment.told, endpoint.spec
    before = stored.target_variant if stored is not None else None
    if spec.target_variant not in (None, before):
        step = f"{before} -> {spec.target_variant}" if before is not None else f"{spec.target_variant} is to serve"
        alone = _reason_of_agent(endpoint, spec.target_variant)
        reason = alone or why.reason or reasons.SWITCH
        message = f"{step}. {why.message}" if alone is None else f"{step}, by the agent itself. {why.message}"
        events = [Event(reason=reason, message=truncated(message), endpoint=spec.pod_name)]
        if before is not None:
            events.append(Event(reason=reason, message=truncated(f"{spec.pod_name}: {message}")))
        return events
    if stored is None or why.reason in (None, endpoint.told.reason) or why.reason in _WITHOUT_EVENT:
        return []
    return [Event(reason=str(why.reason), message=why.message, warning=why.reason in _WARNINGS, endpoint=spec.pod_name)]


def _reason_of_agent(endpoint: Endpoint, target: str | None) -> str | None:
    """Why the agent went to ``target`` by itself, if it did; the operator then only takes over what serves."""
    status = endpoint.status
    last = status.switches[-1] if status.switches else None
    if last is None or last.decided_by != "Agent" or not last.to_variant == target == status.active_variant:
        return None
    return last.reason


def _new_issues(
    before: PortfolioStatus, after: PortfolioStatus, assignments: Sequence[Assignment]
) -> list[list[Issue]]:
    """Issues per endpoint that the stored (truncated) condition does not name."""
    old, new = _ignored(before.conditions), _ignored(after.conditions)
    if new == old:
        return [[] for _ in assignments]
    return [[issue for issue in assignment.issues if issue.message not in old] for assignment in assignments]


def _ignored(conditions: Sequence[Condition]) -> str:
    return next((entry.message for entry in conditions if entry.type == "ObjectivesAccepted"), "")
