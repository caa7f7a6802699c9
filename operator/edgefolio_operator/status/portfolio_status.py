"""Status of one ModelPortfolio: what its reconciliation found, as conditions, counts and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.specification.conditions import ConditionValue, Failure, time_seconds, time_text, truncated
from edgefolio.specification.portfolio_status import Address, PortfolioStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import reasons
from edgefolio_operator.cluster_state.job_status import ObservedJob
from edgefolio_operator.cluster_state.snapshot import PortfolioSnapshot
from edgefolio_operator.cluster_state.workload_status import WorkloadStatus
from edgefolio_operator.endpoints.assignment import SAME_SWITCH_SECONDS, Assignment
from edgefolio_operator.endpoints.endpoint import Endpoint
from edgefolio_operator.endpoints.endpoint_counts import tally
from edgefolio_operator.endpoints.memory_reservations import Promise
from edgefolio_operator.endpoints.resource_view import ResourceView
from edgefolio_operator.ownership import repository_owned
from edgefolio_operator.resources.daemonset import service_url
from edgefolio_operator.revisions import profiling
from edgefolio_operator.revisions.history import first_publication
from edgefolio_operator.revisions.profiling import ProfilingPlan
from edgefolio_operator.revisions.pruning_job import PruningJobPlan, terminal_error
from edgefolio_operator.revisions.repository_check import RepositoryCheckPlan
from edgefolio_operator.revisions.rollout import RolloutPlan
from edgefolio_operator.status import repository_condition
from edgefolio_operator.status.agent_conditions import AGENT_CONDITIONS
from edgefolio_operator.status.conditions import Facts, conditions_of
from edgefolio_operator.status.informational_conditions import (
    INFORMATIONAL_CONDITIONS,
    OVERRIDES_IGNORED,
    informational_conditions,
)
from edgefolio_operator.status.security_conditions import SECURITY_CONDITIONS, security_conditions


@dataclass(frozen=True, kw_only=True)
class PortfolioFindings:
    """What the reconciliation of a portfolio found: the inputs of its status and of its owned objects."""

    snapshot: PortfolioSnapshot
    portfolio: ModelPortfolio
    making: PruningJobPlan
    check: RepositoryCheckPlan
    jobs: Sequence[ObservedJob]
    revisions: tuple[RevisionStatus, ...]
    revision: RevisionStatus | None
    profiling: ProfilingPlan
    rollout: RolloutPlan
    members: Sequence[Endpoint]
    assignments: Sequence[Assignment]
    resources: ResourceView
    workload: WorkloadStatus
    job_fault: tuple[str, str] | None
    request: str
    """The annotation by which users ask for another pruning run or check."""
    promises: tuple[Promise, ...]
    agents: dict[str, ConditionValue]


def portfolio_status(found: PortfolioFindings, before: PortfolioStatus, *, now: float) -> PortfolioStatus:
    """The status of a portfolio whose specification is valid."""
    snapshot, portfolio, making, revision = found.snapshot, found.portfolio, found.making, found.revision
    figures = tally(found.members, account=snapshot.account, now=now)
    generation = int(snapshot.portfolio["metadata"].get("generation", 1))
    terminal = found.job_fault or terminal_error(portfolio, making, found.jobs, found.revisions, before)
    if snapshot.repository_owner is not None:
        terminal = repository_owned(snapshot.repository_owner, namespace=portfolio.metadata.namespace or "")
    if snapshot.conflicts:
        terminal = reasons.RESOURCE_CONFLICT, truncated(" ".join(snapshot.conflicts))
    workload, absent = _absent(found, before, now=now)
    facts = Facts(
        generation=generation,
        making=making.status is not None and making.status.outcome in ("Running", "Suspended"),
        revision=revision.number if revision is not None else 0,
        waits_for_others=portfolio.spec.source is None,
        terminal=terminal,
        repository=found.check.trouble,
        rollout=found.rollout.status,
        counts=figures.counts if revision is not None else None,
        endpoints_settled=not figures.starting and not found.workload.missing,
        absent=absent,
        workload=workload,
        objectives_unknown=figures.unknown,
        silent=figures.silent,
        unknown_to_api=figures.unknown_to_api,
        min_available_percent=portfolio.spec.serving.min_available_percent,
        issues=_issues(found),
        informational={
            **informational_conditions(
                mode=portfolio.spec.serving.mode,
                pods=snapshot.pods,
                nodes=[endpoint.surroundings.node_name for endpoint in found.members],
                reads_nodes=snapshot.nodes is not None,
                lost_pods=snapshot.lost_pods,
                resources=found.resources,
                now=now,
            ),
            **security_conditions(portfolio, daemon_set=snapshot.daemon_set, members=found.members),
            **found.agents,
            repository_condition.CONDITION: repository_condition.repository_readable(found.members),
            profiling.CONDITION: profiling.profiles_measured(portfolio, revision),
        },
    )
    wrong = terminal or found.check.trouble or workload
    return PortfolioStatus(
        observed_generation=generation,
        conditions=conditions_of(facts, before=before.conditions, now=now),
        current_revision=facts.revision,
        variant_count=len(revision.variants) if revision is not None else 0,
        revisions=found.revisions,
        publishing_since=before.publishing_since or first_publication(found.revisions),
        job=making.status,
        check=found.check.status,
        rollout=found.rollout.status,
        endpoints=figures.counts,
        address=_address(portfolio, snapshot),
        last_switch_time=_last_switch_time(before.last_switch_time, figures.last_switch_at),
        last_failure=before.last_failure if wrong is None else _failure(*wrong, before=before.last_failure, now=now),
    )


def _absent(found: PortfolioFindings, before: PortfolioStatus, *, now: float) -> tuple[tuple[str, str] | None, int]:
    """Why pods are missing or blocked, and how many of them no endpoint stands for yet."""
    waits = next((entry for entry in before.conditions if entry.type == "Reconciling"), None)
    is_starting = waits is not None and (waits.status, waits.reason) == ("True", reasons.ENDPOINTS_STARTING)
    return found.workload.absent(
        counted={endpoint.surroundings.pod_name for endpoint in found.members if endpoint.counts(now=now)},
        starting_seconds=now - time_seconds(waits.last_transition_time) if waits and is_starting else 0.0,
    )


def _address(portfolio: ModelPortfolio, snapshot: PortfolioSnapshot) -> Address | None:
    """Where clients reach the model; not a Service of somebody else under the portfolio's name."""
    is_taken = bool(snapshot.conflicts) and snapshot.service is None
    url = service_url(portfolio, stored=snapshot.daemon_set or snapshot.service)
    return Address(url=url) if portfolio.spec.serving.mode == "Managed" and not is_taken else None


def _last_switch_time(before: str | None, found: float | None) -> str | None:
    """The time of the last switch; the stored one where only its last seconds differ, which is no news."""
    if found is None or (before is not None and abs(time_seconds(before) - found) <= SAME_SWITCH_SECONDS):
        return before
    return time_text(found)


def _failure(reason: str, message: str, *, before: Failure | None, now: float) -> Failure:
    """The last failure, with the time when it was first seen."""
    text = truncated(message)
    if before is not None and (before.reason, before.message) == (reason, text):
        return before
    return Failure(location="", reason=reason, message=text, time=time_text(now))


def _issues(found: PortfolioFindings) -> tuple[str, ...]:
    """Rejected requests, each once."""
    messages = dict.fromkeys(issue.message for assignment in found.assignments for issue in assignment.issues)
    if found.snapshot.nodes is None and found.portfolio.spec.objective_overrides:
        messages[OVERRIDES_IGNORED] = None
    return tuple(messages)


def refused_status(
    terminal: tuple[str, str], before: PortfolioStatus, *, generation: int, now: float
) -> PortfolioStatus:
    """The status of a portfolio whose specification is refused for the reason ``terminal``."""
    facts = Facts(
        generation=generation,
        revision=before.current_revision,
        terminal=terminal,
        counts=before.endpoints,
        informational={
            entry.type: (entry.status, entry.reason, entry.message)
            for entry in before.conditions
            if entry.type
            in (
                *INFORMATIONAL_CONDITIONS,
                *SECURITY_CONDITIONS,
                *AGENT_CONDITIONS,
                repository_condition.CONDITION,
                profiling.CONDITION,
            )
        },
    )
    conditions = conditions_of(facts, before=before.conditions, now=now)
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions})
