"""Measurements of a published revision on other classes of processors, by a Job each. Pure.

Each entry of ``profiling.nodeSelectors`` is measured once for each revision that is to serve. The outcome is kept in
the status of the revision, so that a Job removed by its time to live is not run again; a failed one is, later. What
serves does not wait for any of it: without a profile the manifest's own counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.contract.job_report import FailureReport, ProfiledReport
from edgefolio.specification.conditions import ConditionValue, time_seconds, time_text, truncated
from edgefolio.specification.portfolio_status import ProfileStatus, RevisionStatus
from edgefolio.specification.profiling import ProfiledNodes
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ENDED, ObservedJob
from edgefolio_operator.messages import listed

#: A measurement that failed is made again after this long: its node may be back.
RETRY_SECONDS = 3600.0
CONDITION = "ProfilesMeasured"
#: Revisions whose profiles stay in the status: what serves, and what served before while a rollout is under way.
KEPT_REVISIONS = 2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A Job to create: its name, and the nodes that it is for."""

    job: str
    nodes: ProfiledNodes


@dataclass(frozen=True, kw_only=True)
class ProfilingPlan:
    """The next step: the revision with its profiles as they are now, the Jobs to create and to delete."""

    revision: RevisionStatus | None = None
    create: tuple[Measurement, ...] = ()
    delete: tuple[str, ...] = ()


def plan_profiling(
    portfolio: ModelPortfolio, *, revision: RevisionStatus | None, jobs: Sequence[ObservedJob], now: float
) -> ProfilingPlan:
    """What is measured of ``revision``, the one that is to serve; Jobs of others are deleted."""
    if revision is None:
        return ProfilingPlan(delete=tuple(job.name for job in jobs))
    known = {entry.name: entry for entry in revision.profiles}
    by_name = {job.name: job for job in jobs}
    profiles, create = [], []
    for nodes in portfolio.spec.profiling.node_selectors:
        key = selector_key(nodes)
        last = known.get(nodes.name)
        if last is not None and last.key != key:
            last = None
        if last is None or _is_due_again(last, now=now):
            last = ProfileStatus(
                name=nodes.name,
                key=key,
                job=_job_name(portfolio, revision, nodes, now=now),
                outcome="Running",
                time=time_text(now),
            )
            create.append(Measurement(job=last.job, nodes=nodes))
        elif last.outcome == "Running":
            current = by_name.get(last.job)
            if current is None:
                # Not created yet, or deleted by hand: applying it once more does no harm.
                create.append(Measurement(job=last.job, nodes=nodes))
            else:
                last = _judged(current, last, revision, now=now)
        profiles.append(last)
    named = {entry.job for entry in profiles}
    return ProfilingPlan(
        revision=revision if tuple(profiles) == revision.profiles else _with(revision, tuple(profiles)),
        create=tuple(create),
        delete=tuple(job.name for job in jobs if job.name not in named),
    )


def selector_key(nodes: ProfiledNodes) -> str:
    """Key of an entry, 16 hexadecimal digits: another selector is measured anew."""
    return hashlib.sha256(json.dumps(nodes.node_selector, sort_keys=True).encode()).hexdigest()[:16]


def replaced(revisions: Sequence[RevisionStatus], plan: ProfilingPlan) -> tuple[RevisionStatus, ...]:
    """``revisions`` with the one that was planned for; profiles are kept of it and of the last one before.

    A status has no room for those of all revisions. One that serves again is asked for once more: its Job finds what is
    in the repository.
    """
    found = plan.revision
    after = [found if found is not None and entry.number == found.number else entry for entry in revisions]
    current = 0 if found is None else found.number
    holders = [entry.number for entry in after if entry.profiles]
    holders.sort(key=lambda number: (number != current, -number))
    return tuple(
        entry if not entry.profiles or entry.number in holders[:KEPT_REVISIONS] else _with(entry, ()) for entry in after
    )


def profiles_measured(portfolio: ModelPortfolio, revision: RevisionStatus | None) -> ConditionValue:
    """Condition ProfilesMeasured: every entry of profiling.nodeSelectors has a profile of the current revision."""
    if not portfolio.spec.profiling.node_selectors:
        return "True", reasons.NOT_ASKED, ""
    profiles = revision.profiles if revision is not None else ()
    failed = [f"{entry.name}: {entry.message}" for entry in profiles if entry.outcome == "Failed"]
    if failed:
        rest = "Endpoints on such nodes are decided for with the nearest profile, scaled."
        return "False", reasons.PROFILING_FAILED, truncated(f"{listed(failed, separator='; ')} {rest}")
    running = [entry for entry in profiles if entry.outcome == "Running"]
    if running or not profiles:
        waiting = [f"{entry.name}: {entry.message}" for entry in running if entry.message]
        return "Unknown", reasons.PROFILING, truncated(listed(waiting, separator="; ") if waiting else "")
    busy = [f"{entry.name}: {entry.message}" for entry in profiles if entry.message]
    return "True", reasons.PROFILED, truncated(listed(busy, separator="; ") if busy else "")


def _with(revision: RevisionStatus, profiles: tuple[ProfileStatus, ...]) -> RevisionStatus:
    return revision.model_copy(update={"profiles": profiles})


def _job_name(portfolio: ModelPortfolio, revision: RevisionStatus, nodes: ProfiledNodes, *, now: float) -> str:
    measurement = f"{revision.number} {revision.manifest_digest} {nodes.name} {selector_key(nodes)} {time_text(now)}"
    return labels.profile_job_name(portfolio.metadata.name, measurement)


def _is_due_again(last: ProfileStatus, *, now: float) -> bool:
    since = now - time_seconds(last.time)
    # A time to come was written by another clock.
    return last.outcome == "Failed" and (since < 0 or since >= RETRY_SECONDS)


def _judged(job: ObservedJob, last: ProfileStatus, revision: RevisionStatus, *, now: float) -> ProfileStatus:
    """The entry after its Job said something: figures of another revision, or of none, are a failure."""
    if job.outcome not in ENDED:
        return last if job.waiting == last.message else last.model_copy(update={"message": truncated(job.waiting)})
    report = job.report
    if job.outcome == "Succeeded" and isinstance(report, ProfiledReport):
        if (report.revision, report.manifest_digest) == (revision.number, revision.manifest_digest):
            return last.model_copy(
                update={
                    "outcome": "Measured",
                    "message": report.note,
                    "time": time_text(now),
                    "class_name": report.class_name,
                    "digest": report.digest,
                    "processor": report.processor,
                    "variants": report.variants,
                }
            )
        why = f"its Job measured revision {report.revision}, not the published one."
    elif isinstance(report, FailureReport):
        why = report.one_line()
    else:
        why = job.message or (f"Its pod ended: {job.died}." if job.died else "Its Job ended without a word.")
    return last.model_copy(update={"outcome": "Failed", "message": truncated(why), "time": time_text(now)})
