"""Periodic check of a repository that others publish to, by a Job. Pure: status and Jobs in, plan out.

The digest that a revision is first seen with is pinned in the status like that of a revision made here. A repository
that cannot be read, or in which a revision has changed, does not affect what serves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgefolio.contract.job_report import FailureReport, ProfiledReport, PublishedReport
from edgefolio.specification.conditions import time_seconds, time_text, truncated
from edgefolio.specification.portfolio_status import CheckStatus, RevisionStatus
from edgefolio.specification.resource import ModelPortfolio, PortfolioSpecification
from edgefolio_operator import labels, reasons
from edgefolio_operator.cluster_state.job_status import ENDED, ObservedJob

#: Longest time until a repository that could not be read is checked again.
RETRY_SECONDS = 60.0
#: Relative jitter: sites that were installed together must not check at the same time.
_JITTER = 0.1


@dataclass(frozen=True, kw_only=True)
class RepositoryCheckPlan:
    """The next step; ``status`` is the new ``status.check``, ``revision`` one that was not known before.

    ``create``: name of the Job to create. ``trouble``: reason and message of a fault of the repository.
    """

    status: CheckStatus | None = None
    create: str = ""
    key: str = ""
    delete: tuple[str, ...] = ()
    revision: RevisionStatus | None = None
    trouble: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Found:
    outcome: Literal["Found", "Nothing", "Unreachable", "Refused"]
    reason: str = ""
    message: str = ""
    revision: RevisionStatus | None = None


def check_key(spec: PortfolioSpecification) -> str:
    """Key of a check, 16 hexadecimal digits: a new check is due when it changes."""
    secret = spec.repository.reading_secret
    document = [
        spec.repository.uri,
        secret.name if secret is not None else None,
        spec.serving.model_name,
        spec.pinned_revision,
        spec.repository.manifest_digest,
    ]
    if spec.repository.verification_key is not None:
        document.append(spec.repository.verification_key)
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:16]


def plan_repository_check(
    portfolio: ModelPortfolio,
    *,
    uid: str,
    request: str,
    last: CheckStatus | None,
    jobs: Sequence[ObservedJob],
    revisions: Sequence[RevisionStatus],
    now: float,
) -> RepositoryCheckPlan:
    """Whether a check is due, and what the last one found. ``last`` is the stored ``status.check``."""
    if portfolio.spec.source is not None:
        return RepositoryCheckPlan(delete=tuple(job.name for job in jobs))
    key = check_key(portfolio.spec)
    same = last is not None and (last.specification_hash, last.request) == (key, request)
    if last is None or not same or (not last.job and _is_due(portfolio, last, uid=uid, now=now)):
        name = labels.check_job_name(portfolio.metadata.name, f"{uid} {key} {request} {time_text(now)}")
        before = last if last is not None and last.specification_hash == key else CheckStatus(specification_hash=key)
        status = before.model_copy(update={"job": name, "request": request})
        others = tuple(job.name for job in jobs if job.name != name)
        return RepositoryCheckPlan(
            status=status, create=name, key=key, delete=others, trouble=_trouble(status, revisions)
        )
    if not last.job:
        return RepositoryCheckPlan(status=last, key=key, trouble=_trouble(last, revisions))
    current = next((job for job in jobs if job.name == last.job), None)
    others = tuple(job.name for job in jobs if job.name != last.job)
    if current is None:
        # Not created yet, or deleted by hand: applying it once more does no harm.
        return RepositoryCheckPlan(
            status=last, create=last.job, key=key, delete=others, trouble=_trouble(last, revisions)
        )
    if current.outcome not in ENDED:
        return RepositoryCheckPlan(status=last, key=key, delete=others, trouble=_trouble(last, revisions))
    found = _judged(current, revisions, portfolio.spec, now=now)
    status = CheckStatus(
        specification_hash=key,
        request=request,
        outcome=found.outcome,
        reason=found.reason or None,
        message=truncated(found.message),
        time=time_text(now),
    )
    return RepositoryCheckPlan(
        status=status, key=key, delete=others, revision=found.revision, trouble=_trouble(status, revisions)
    )


def _judged(
    job: ObservedJob, revisions: Sequence[RevisionStatus], spec: PortfolioSpecification, *, now: float
) -> _Found:
    report = job.report
    if report is None or isinstance(report, ProfiledReport):
        why = job.message or job.waiting or (f"Its pod ended: {job.died}." if job.died else "It said nothing.")
        return _Found(outcome="Unreachable", reason=reasons.CHECK_FAILED, message=f"The Job that looks failed. {why}")
    if isinstance(report, FailureReport):
        if report.kind == "Nothing":
            return _Found(outcome="Nothing", reason=reasons.NOTHING_PUBLISHED, message=report.one_line())
        if report.kind == "Refused":
            return _Found(outcome="Refused", reason=reasons.REVISION_REFUSED, message=report.one_line())
        return _Found(outcome="Unreachable", reason=reasons.REPOSITORY_UNREACHABLE, message=report.one_line())
    return _accepted(report, revisions, spec, now=now)


def _accepted(
    report: PublishedReport, revisions: Sequence[RevisionStatus], spec: PortfolioSpecification, *, now: float
) -> _Found:
    """Accept the published revision unless it contradicts a known one."""
    known = {entry.number: entry.manifest_digest for entry in revisions}
    pinned = known.get(report.revision)
    if pinned == report.manifest_digest:
        return _Found(outcome="Found")
    if pinned is not None:
        return _Found(
            outcome="Refused",
            reason=reasons.REVISION_CHANGED,
            message=f"Revision {report.revision} has another manifest than before ({report.manifest_digest[:12]}..., "
            f"pinned is {pinned[:12]}...): it was changed after it was published. Publish a new revision.",
        )
    named = spec.pinned_revision or spec.repository.manifest_digest
    if known and report.revision < max(known) and not named:
        return _Found(
            outcome="Refused",
            reason=reasons.REVISION_WENT_BACK,
            message=f"The repository says revision {report.revision}, and revision {max(known)} was published before. "
            f"Publish a new revision, or set spec.pinnedRevision to go back.",
        )
    revision = RevisionStatus(
        number=report.revision,
        manifest_digest=report.manifest_digest,
        published_time=time_text(now),
        variants=report.variants,
        splits=report.splits,
        measured_on=report.measured_on,
    )
    return _Found(outcome="Found", revision=revision)


def _is_due(portfolio: ModelPortfolio, last: CheckStatus, *, uid: str, now: float) -> bool:
    """Whether the repository is to be checked again, with jitter by portfolio."""
    if last.time is None:
        return True
    interval = float(portfolio.spec.repository.check_interval_seconds)
    if last.outcome == "Unreachable":
        interval = min(interval, RETRY_SECONDS)
    digest = hashlib.sha256(f"{uid} {last.time}".encode()).digest()
    since = now - time_seconds(last.time)
    # A time to come was written by another clock: waiting for it could take years.
    return since < 0 or since >= interval * (1 + _JITTER * digest[0] / 255)


def _trouble(status: CheckStatus, revisions: Sequence[RevisionStatus]) -> tuple[str, str] | None:
    if status.reason is None or (status.outcome == "Nothing" and not revisions):
        return None
    return status.reason, status.message
