"""One wave of a rollout: which of its endpoints fail, and whether that is the revision's fault. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.specification.cluster import Rollout
from edgefolio.specification.conditions import time_seconds, time_text
from edgefolio.specification.portfolio_status import FailedEndpoint
from edgefolio_operator import reasons
from edgefolio_operator.messages import listed

#: An agent tries bytes that it refused again after 60 s, and then has to fetch them.
#: A failure that is still there after two tries is no accident.
CONFIRMED_SECONDS = 150.0
_LONGEST_PAUSE_SECONDS = 86_400.0
#: Reasons of an agent's last failure that count against the revision. Any other may pass.
_EVIDENCE = (reasons.LOAD_FAILED, reasons.REVISION_REFUSED, reasons.INSUFFICIENT_STORAGE)
#: Of these, reasons that one cause outside the revision does not give to several endpoints at once, as a store can.
_INDEPENDENT = (reasons.LOAD_FAILED, reasons.OBJECTIVES_NOT_MET)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One endpoint of a rollout: the revision it was assigned and what it reports.

    ``reachable`` is false while its pod or node is not Ready; such an endpoint neither fails nor delays a rollout.
    ``failed_revision`` is that of its last failure, heard of at ``failed_at`` (seconds since the epoch, our clock).
    """

    name: str
    assigned: int | None
    active: int | None
    reachable: bool = True
    objectives_met: bool | None = None
    failed_revision: int | None = None
    failed_at: float = 0.0
    failure_reason: str = reasons.LOAD_FAILED


@dataclass(frozen=True, kw_only=True)
class Wave:
    """The endpoints that were sent to ``revision`` and can be reached; ``size`` of them in the last wave.

    ``began``: when that was sent. ``analysed``: the analysis time has passed.
    """

    watched: Sequence[Member]
    revision: int
    size: int
    began: float
    analysed: bool

    def reason_of(self, member: Member) -> str | None:
        """Why ``member`` fails now; ``None`` if it does not, or if it may pass."""
        if member.active != self.revision:
            # Endpoints remember their last failure: one from before this wave says nothing about it.
            is_new = member.failed_revision == self.revision and member.failed_at >= self.began
            return member.failure_reason if is_new and member.failure_reason in _EVIDENCE else None
        return reasons.OBJECTIVES_NOT_MET if self.analysed and member.objectives_met is False else None

    def has_failed(self, entry: FailedEndpoint) -> bool:
        """Whether the endpoint of ``entry`` fails now."""
        return any(member.name == entry.endpoint and self.reason_of(member) for member in self.watched)

    def is_confirmed(self, entry: FailedEndpoint, *, now: float) -> bool:
        """Whether a failure was seen for long enough, or again; objectives were watched for the analysis time."""
        if entry.left_behind or entry.reason == reasons.OBJECTIVES_NOT_MET:
            return True
        since = time_seconds(entry.since)
        again = any(member.name == entry.endpoint and member.failed_at > since + 1.0 for member in self.watched)
        return again or not 0 <= now - since < CONFIRMED_SECONDS


def failures_now(
    wave: Wave, known: Sequence[FailedEndpoint], *, now: float, keep_unproven: bool = False
) -> tuple[FailedEndpoint, ...]:
    """The endpoints that fail now or were left behind.

    ``keep_unproven`` keeps those that are tried again until they serve the revision.
    """
    before = {entry.endpoint: entry for entry in known}
    found = {entry.endpoint: entry for entry in known if entry.left_behind}
    served = {member.name for member in wave.watched if member.active == wave.revision and wave.analysed}
    if keep_unproven:
        found |= {name: entry for name, entry in before.items() if name not in served}
    for member in wave.watched:
        if (reason := wave.reason_of(member)) is not None:
            entry = before.get(member.name) or FailedEndpoint(endpoint=member.name, reason=reason, since=time_text(now))
            found[member.name] = entry.model_copy(update={"reason": reason})
    return tuple(found[name] for name in sorted(found))[:256]


def failure_of_revision(
    wave: Wave, failures: Sequence[FailedEndpoint], settings: Rollout, *, tried: int, now: float
) -> tuple[str, str] | None:
    """Reason and message if so much of the wave, or of all ``tried`` endpoints, fails that the revision is at fault."""
    new = [entry for entry in failures if not entry.left_behind]
    # Those that cannot be reached prove nothing, for or against it.
    serves = any(member.active == wave.revision for member in wave.watched)
    size = wave.size if serves else min(wave.size, len(wave.watched))
    if size <= 1:
        # One endpoint may be at fault itself: it is asked again.
        evident = [entry for entry in new if wave.is_confirmed(entry, now=now)]
    else:
        evident = [entry for entry in new if entry.reason in _INDEPENDENT or wave.is_confirmed(entry, now=now)]
    enough_of_wave = len(evident) >= max(min(2, size), math.ceil(size * settings.failure_percent / 100))
    # Small waves of which each loses one, too.
    evident += [entry for entry in failures if entry.left_behind] if evident else []
    enough_of_all = len(evident) >= max(2, math.ceil(tried * settings.failure_percent / 100))
    if not evident or not (enough_of_wave or enough_of_all):
        return None
    reason = evident[0].reason
    names = listed([entry.endpoint for entry in evident])
    if reason == reasons.OBJECTIVES_NOT_MET:
        return reason, f"With revision {wave.revision} {names} missed the objectives."
    return reason, f"Revision {wave.revision} could not be served by {names}."


def retry_pause(attempts: int, *, first: float) -> float:
    """Seconds until what failed ``attempts`` times is tried again."""
    return min(first * 2.0 ** min(attempts - 1, 20), _LONGEST_PAUSE_SECONDS)
