"""Rollout of a new revision to the endpoints, in waves that are analysed one by one. Pure.

A wave is sent; when all that were sent serve the new revision, and the analysis time has passed, and every one of them
meets its objectives, the next is sent. One that cannot load it, or misses its objectives at the end of the analysis,
fails the rollout: everything goes back (``Rollback``) or stays where it is (``Pause``). A revision that was rolled back
is not tried again; the next one is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgefolio.specification.cluster import Rollout
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.portfolio_status import RolloutStatus
from edgefolio_operator import reasons
from edgefolio_operator.messages import listed


@dataclass(frozen=True, kw_only=True)
class Member:
    """One endpoint of a rollout: the revision it was assigned and what it reports.

    ``reachable`` is false while its pod or node is not Ready; such an endpoint neither fails nor delays a rollout.
    ``failed_revision`` could not be loaded or did not answer its probe, ``failed_at`` (seconds since the epoch).
    """

    name: str
    assigned: int | None
    active: int | None
    reachable: bool = True
    objectives_met: bool | None = None
    failed_revision: int | None = None
    failed_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """The revision each endpoint is to serve, and the rollout's new status."""

    assignments: Mapping[str, int]
    status: RolloutStatus | None


def plan_rollout(
    *,
    target: int,
    members: Sequence[Member],
    last: RolloutStatus | None,
    settings: Rollout,
    known_revisions: frozenset[int],
    now: float,
) -> RolloutPlan:
    """Send endpoints to ``target``. ``known_revisions`` are those that can still be served."""
    status = last if last is not None and last.revision == target else None
    if status is None:
        status = _begin(target, members, known_revisions, now)
    if status.phase == "RolledBack":
        return RolloutPlan(assignments=_everyone(members, status.from_revision or target), status=status)
    before = status.from_revision if status.from_revision in known_revisions else None
    if before is None:
        # There is no revision to go back to: no waves.
        done = _with(status, phase="Completed", updated=len(members))
        return RolloutPlan(assignments=_everyone(members, target), status=done)
    sent = [member for member in members if member.assigned == target]
    waiting = [member for member in members if member.assigned != target]
    kept = {member.name: target for member in sent} | {member.name: before for member in waiting}
    if status.phase in ("Paused", "Completed"):
        # Later endpoints join the finished ones.
        done_by = target if status.phase == "Completed" else before
        assignments = {**kept, **{member.name: done_by for member in waiting}}
        return RolloutPlan(assignments=assignments, status=_with(status, updated=_count(assignments, target)))
    return _progress(status, sent=sent, waiting=waiting, kept=kept, before=before, settings=settings, now=now)


def wave_size(members: int, settings: Rollout) -> int:
    """How many of ``members`` endpoints one wave takes."""
    return max(1, members * settings.max_concurrent_percent // 100)


def _progress(
    status: RolloutStatus,
    *,
    sent: list[Member],
    waiting: list[Member],
    kept: dict[str, int],
    before: int,
    settings: Rollout,
    now: float,
) -> RolloutPlan:
    watched = [member for member in sent if member.reachable]
    began = now if status.wave_start_time is None else time_seconds(status.wave_start_time)
    analysed = now - began >= settings.analysis_seconds
    failure = _failure(watched, status.revision, began=began, analysed=analysed)
    if failure is not None:
        reason, message = failure
        if settings.on_failure == "Pause":
            return RolloutPlan(assignments=kept, status=_with(status, phase="Paused", reason=reason, message=message))
        back = _with(status, phase="RolledBack", updated=0, reason=reason, message=message)
        return RolloutPlan(assignments=dict.fromkeys(kept, before), status=back)
    arrived = all(member.active == status.revision for member in watched)
    if not (arrived and analysed) and sent:
        return RolloutPlan(assignments=kept, status=_with(status, updated=len(sent)))
    if not waiting:
        return RolloutPlan(assignments=kept, status=_with(status, phase="Completed", updated=len(sent)))
    # Endpoints that cannot be reached come last: a wave of them alone would prove nothing.
    order = sorted(waiting, key=lambda member: (not member.reachable, member.name))
    wave = order[: wave_size(len(sent) + len(waiting), settings)]
    assignments = {**kept, **{member.name: status.revision for member in wave}}
    sent_now = _with(status, updated=len(sent) + len(wave), wave_start_time=time_text(now))
    return RolloutPlan(assignments=assignments, status=sent_now)


def _begin(target: int, members: Sequence[Member], known: frozenset[int], now: float) -> RolloutStatus:
    served = Counter(
        member.assigned for member in members if member.assigned not in (None, target) and member.assigned in known
    )
    before = served.most_common(1)[0][0] if served else None
    return RolloutStatus(
        revision=target,
        from_revision=before,
        phase="Progressing" if before is not None else "Completed",
        wave_start_time=None if before is not None else time_text(now),
    )


def _failure(watched: Sequence[Member], revision: int, *, began: float, analysed: bool) -> tuple[str, str] | None:
    # Endpoints remember their last failure: one from before this wave says nothing about it.
    broken = [member.name for member in watched if member.failed_revision == revision and member.failed_at >= began]
    if broken:
        return reasons.LOAD_FAILED, f"Revision {revision} could not be served by {listed(broken)}."
    missing = [member.name for member in watched if analysed and member.objectives_met is False]
    if missing:
        return reasons.OBJECTIVES_NOT_MET, f"With revision {revision} {listed(missing)} missed the objectives."
    return None


def _everyone(members: Sequence[Member], revision: int) -> dict[str, int]:
    return {member.name: revision for member in members}


def _count(assignments: Mapping[str, int], revision: int) -> int:
    return sum(1 for assigned in assignments.values() if assigned == revision)


def _with(status: RolloutStatus, **changes: object) -> RolloutStatus:
    return RolloutStatus.model_validate({**status.model_dump(), **changes})
