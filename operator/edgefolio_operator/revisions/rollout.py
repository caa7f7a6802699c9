"""Rollout of a new revision to the endpoints, in waves that are analysed one by one. Pure.

A wave is sent; when all that were sent serve the new revision, and the analysis time has passed, and they meet their
objectives, the next is sent. What may pass (a repository that does not answer) delays a wave. What speaks against the
revision (it cannot be loaded, its bytes are refused, objectives are missed) fails it where a stated share of a wave
says so: everything goes back (``Rollback``) or stays where it is (``Pause``). Fewer endpoints are left on the revision
before, and the rollout goes on. What was rolled back or left behind is tried again, after growing pauses or when the
user asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgefolio.specification.cluster import Rollout
from edgefolio.specification.conditions import time_seconds, time_text, truncated
from edgefolio.specification.portfolio_status import FailedEndpoint, RolloutStatus
from edgefolio_operator import reasons
from edgefolio_operator.labels import APPROVE_REVISION_ANNOTATION
from edgefolio_operator.revisions.wave import (
    Member,
    Wave,
    failure_of_revision,
    failures_now,
    retry_pause,
)

#: Pause before a revision that was rolled back is tried again; it doubles, and after the last only the user asks.
_FIRST_RETRY_SECONDS = 3600.0
_MOST_ATTEMPTS = 6
#: Pause before an endpoint that was left behind is tried again; it doubles up to a day.
_LEFT_BEHIND_SECONDS = 600.0
#: After this long a wave no longer waits for those of it that may still arrive, if they are few.
_PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """The revision each endpoint is to serve, and the rollout's new status."""

    assignments: Mapping[str, int]
    status: RolloutStatus | None


@dataclass(frozen=True, kw_only=True)
class _Rollout:
    """The inputs of one plan."""

    status: RolloutStatus
    members: Sequence[Member]
    before: int
    settings: Rollout
    now: float

    @property
    def target(self) -> int:
        return self.status.revision

    def kept(self) -> dict[str, int]:
        return {member.name: self.target if member.assigned == self.target else self.before for member in self.members}


def plan_rollout(
    *,
    target: int,
    members: Sequence[Member],
    last: RolloutStatus | None,
    settings: Rollout,
    known_revisions: frozenset[int],
    now: float,
    request: str = "",
    approved: str = "",
) -> RolloutPlan:
    """Send endpoints to ``target``. ``known_revisions`` are those that can still be served.

    ``request`` and ``approved`` are the user's annotations: any new request tries again, ``approved`` is the number of
    the revision that may be rolled out.
    """
    status = last if last is not None and last.revision == target else None
    if status is None:
        status = _begin(target, members, known_revisions, now, request=request)
    status = _of_members(status, members)
    before = status.from_revision if status.from_revision in known_revisions else None
    if before is None:
        # There is no revision to go back to: no waves.
        if status.phase == "RolledBack":
            return RolloutPlan(assignments=_everyone(members, status.from_revision or target), status=status)
        done = _with(status, phase="Completed", updated=len(members))
        return RolloutPlan(assignments=_everyone(members, target), status=done)
    status = _tried_again(status, request=request, now=now)
    if status.phase == "RolledBack":
        return RolloutPlan(assignments=_everyone(members, before), status=status)
    rollout = _Rollout(status=status, members=members, before=before, settings=settings, now=now)
    if settings.approval == "Manual" and approved.strip() != str(target) and status.phase != "Completed":
        return _waiting_for_approval(rollout)
    if status.reason == reasons.WAITING_FOR_APPROVAL:
        rollout = replace(rollout, status=_with(status, phase="Progressing", reason=None, message=""))
    if rollout.status.phase == "Completed":
        return _completed(rollout)
    if rollout.status.phase == "Paused":
        assignments = rollout.kept()
        return RolloutPlan(assignments=assignments, status=_with(rollout.status, updated=_count(assignments, target)))
    return _progress(rollout)


def wave_size(members: int, settings: Rollout) -> int:
    """How many of ``members`` endpoints one wave takes."""
    return max(1, members * settings.max_concurrent_percent // 100)


def _progress(rollout: _Rollout) -> RolloutPlan:
    status, settings, now = rollout.status, rollout.settings, rollout.now
    kept, target = rollout.kept(), status.revision
    left = {entry.endpoint for entry in status.failures or () if entry.left_behind}
    sent = [member for member in rollout.members if member.assigned == target]
    waiting = [member for member in rollout.members if member.assigned != target and member.name not in left]
    watched = [member for member in sent if member.reachable]
    began = now if status.wave_start_time is None else min(now, time_seconds(status.wave_start_time))
    analysed = now - began >= settings.analysis_seconds
    size = status.wave_size or min(len(sent), wave_size(len(rollout.members), settings))
    wave = Wave(watched=watched, revision=target, size=size, began=began, analysed=analysed)
    failures = failures_now(wave, status.failures or (), now=now)
    status = _with(status, failures=failures or None)
    found = failure_of_revision(wave, failures, settings, tried=len(sent) + len(left), now=now)
    if found is not None:
        return _failed(replace(rollout, status=status), *found)
    failing = {entry.endpoint for entry in failures if not entry.left_behind}
    late = [member for member in watched if member.active != target and member.name not in failing]
    arrived = not late or (now - began > _PATIENCE_SECONDS and 100 * len(late) < settings.failure_percent * size)
    confirmed = all(wave.is_confirmed(entry, now=now) for entry in failures if not entry.left_behind)
    if sent and not (arrived and analysed and confirmed):
        return RolloutPlan(assignments=kept, status=_with(status, updated=len(sent)))
    status = _with(status, failures=_left_behind(failures, now=now) or None)
    kept = {name: rollout.before if name in failing else revision for name, revision in kept.items()}
    updated = len(sent) - len(failing)
    if not waiting:
        return RolloutPlan(assignments=kept, status=_with(status, phase="Completed", updated=updated))
    # Endpoints that cannot be reached come last: a wave of them alone would prove nothing.
    order = sorted(waiting, key=lambda member: (not member.reachable, member.name))
    chosen = order[: wave_size(len(rollout.members), settings)]
    assignments = {**kept, **{member.name: target for member in chosen}}
    sent_now = _with(status, updated=updated + len(chosen), wave_start_time=time_text(now), wave_size=len(chosen))
    return RolloutPlan(assignments=assignments, status=sent_now)


def _completed(rollout: _Rollout) -> RolloutPlan:
    """Later endpoints join the finished ones; those left behind are tried again after their pause."""
    status, now = rollout.status, rollout.now
    watched = [member for member in rollout.members if member.assigned == status.revision and member.reachable]
    known = {entry.endpoint: entry for entry in status.failures or ()}
    retried = [member for member in watched if member.name in known and not known[member.name].left_behind]
    began = min((time_seconds(known[member.name].since) for member in retried), default=now)
    analysed = now - began >= rollout.settings.analysis_seconds
    wave = Wave(watched=retried, revision=status.revision, size=len(retried), began=began, analysed=analysed)
    failures = failures_now(wave, tuple(known.values()), now=now, keep_unproven=True)
    failures = tuple(
        _left_behind((entry,), now=now)[0] if wave.has_failed(entry) and wave.is_confirmed(entry, now=now) else entry
        for entry in failures
    )
    failures = tuple(_retried(entry, now=now) if _is_due(entry, now=now) else entry for entry in failures)
    left = {entry.endpoint for entry in failures if entry.left_behind}
    assignments = {
        member.name: rollout.before if member.name in left else status.revision for member in rollout.members
    }
    updated = _count(assignments, status.revision)
    return RolloutPlan(assignments=assignments, status=_with(status, failures=failures or None, updated=updated))


def _failed(rollout: _Rollout, reason: str, message: str) -> RolloutPlan:
    status, now = rollout.status, rollout.now
    text = truncated(message)
    if rollout.settings.on_failure == "Pause":
        paused = _with(status, phase="Paused", reason=reason, message=text)
        return RolloutPlan(assignments=rollout.kept(), status=paused)
    attempts = status.attempts or 1
    pause = retry_pause(attempts, first=_FIRST_RETRY_SECONDS)
    back = _with(
        status,
        phase="RolledBack",
        updated=0,
        reason=reason,
        message=text,
        failures=None,
        attempts=attempts,
        next_attempt_time=time_text(now + pause) if attempts < _MOST_ATTEMPTS else None,
    )
    return RolloutPlan(assignments=_everyone(rollout.members, rollout.before), status=back)


def _tried_again(status: RolloutStatus, *, request: str, now: float) -> RolloutStatus:
    """The status, begun anew if the user asks for it or the pause after a rollback is over."""
    asked = request != (status.request or "")
    if asked:
        failures = tuple(_retried(entry, now=now) for entry in status.failures or () if entry.left_behind)
        status = _with(status, request=request or None, failures=failures or None)
    if status.phase not in ("RolledBack", "Paused") or status.reason == reasons.WAITING_FOR_APPROVAL:
        return status
    attempts = status.attempts or 1
    if status.phase == "RolledBack" and status.attempts is None:
        # A version that never tried again wrote it.
        pause = retry_pause(attempts, first=_FIRST_RETRY_SECONDS)
        status = _with(status, attempts=attempts, next_attempt_time=time_text(now + pause))
    due = status.next_attempt_time
    is_due = status.phase == "RolledBack" and due is not None and now >= time_seconds(due)
    if not asked and not is_due:
        return status
    return _with(
        status,
        phase="Progressing",
        reason=None,
        message="",
        failures=None,
        attempts=attempts + 1,
        next_attempt_time=None,
        wave_start_time=time_text(now),
        wave_size=None,
    )


def _waiting_for_approval(rollout: _Rollout) -> RolloutPlan:
    target = rollout.target
    message = f"Revision {target} waits for approval: annotate the ModelPortfolio with {APPROVE_REVISION_ANNOTATION}"
    status = _with(rollout.status, phase="Paused", reason=reasons.WAITING_FOR_APPROVAL, message=f"{message}={target}.")
    return RolloutPlan(assignments=rollout.kept(), status=status)


def _begin(target: int, members: Sequence[Member], known: frozenset[int], now: float, *, request: str) -> RolloutStatus:
    served = Counter(
        member.assigned for member in members if member.assigned not in (None, target) and member.assigned in known
    )
    before = served.most_common(1)[0][0] if served else None
    return RolloutStatus(
        revision=target,
        from_revision=before,
        phase="Progressing" if before is not None else "Completed",
        wave_start_time=None if before is not None else time_text(now),
        request=request or None,
    )


def _of_members(status: RolloutStatus, members: Sequence[Member]) -> RolloutStatus:
    """``status`` without failures of endpoints that are gone: nothing will prove or mend them."""
    names = {member.name for member in members}
    kept = tuple(entry for entry in status.failures or () if entry.endpoint in names)
    return status if len(kept) == len(status.failures or ()) else _with(status, failures=kept or None)


def _left_behind(failures: Sequence[FailedEndpoint], *, now: float) -> tuple[FailedEndpoint, ...]:
    return tuple(
        entry if entry.left_behind else entry.model_copy(update={"left_behind": True, "since": time_text(now)})
        for entry in failures
    )


def _is_due(entry: FailedEndpoint, *, now: float) -> bool:
    pause = retry_pause(entry.attempts, first=_LEFT_BEHIND_SECONDS)
    return entry.left_behind and now - time_seconds(entry.since) >= pause


def _retried(entry: FailedEndpoint, *, now: float) -> FailedEndpoint:
    changes = {"left_behind": False, "since": time_text(now), "attempts": entry.attempts + 1}
    return entry.model_copy(update=changes)


def _everyone(members: Sequence[Member], revision: int) -> dict[str, int]:
    return {member.name: revision for member in members}


def _count(assignments: Mapping[str, int], revision: int) -> int:
    return sum(1 for assigned in assignments.values() if assigned == revision)


def _with(status: RolloutStatus, **changes: object) -> RolloutStatus:
    return RolloutStatus.model_validate({**status.model_dump(), **changes})
