"""Readiness of a set of workers: why a split cannot be taken, or serves by its fallback alone."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio.decision.estimates.network import missing_figure
from edgefolio.decision.types import Reason, SplitProfile, VariantProfile, WorkerSet
from edgefolio.shown_text import printable

#: From this share of fallback answers on, the peers are as good as lost.
_LOST_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What keeps a split out, as a reason and a clause. One that ``yields`` does so to
    an order: its workers are all there, though nobody knows yet how they answer."""

    reason: Reason
    clause: str
    yields: bool = True


def incomplete(profile: VariantProfile, workers: WorkerSet | None) -> Bar | None:
    """Why there is no whole set for the split ``profile``; ``None`` if there is one."""
    split = _split(profile)
    if workers is None:
        return _bar("no set of workers is offered", yields=False)
    if workers.variant != profile.name:
        return _bar(f"the set of workers is for {printable(workers.variant)[:63]}", yields=False)
    if workers.workers != split.workers or not 0 <= workers.rank < split.workers:
        return _bar(f"the set has {workers.workers:.6g} of {split.workers:.6g} workers", yields=False)
    return None


def not_ready(
    profile: VariantProfile, workers: WorkerSet | None, *, stale_after_seconds: float, serves: bool
) -> Bar | None:
    """Why the split ``profile`` cannot be computed by its set now; ``None`` if it can.

    One that ``serves`` needs no prediction, so its figures may be missing.
    """
    if (bar := incomplete(profile, workers)) is not None:
        return bar
    assert workers is not None
    if not workers.is_ready:
        said = printable(workers.reason)[:80]
        return _bar(f"its workers are not linked{f' ({said})' if said else ''}")
    # Written so that a NaN age counts as stale.
    if not workers.age_seconds <= stale_after_seconds:
        return _bar(f"what is known of its workers is {workers.age_seconds:.4g} s old")
    figure = None if serves else missing_figure(_split(profile), workers)
    return None if figure is None else _bar(f"{figure} is not known")


def lost(
    profile: VariantProfile,
    workers: WorkerSet | None,
    *,
    stale_after_seconds: float,
    min_requests: int,
    min_accuracy_percent: float | None,
    served_accuracy_percent: float,
) -> str | None:
    """Why the peers of the split that serves are as good as lost, as a clause; ``None`` if they are not.

    They are not linked, or the fallback answers half of the requests, or so many that what is served is less accurate
    than asked.
    """
    bar = not_ready(profile, workers, stale_after_seconds=stale_after_seconds, serves=True)
    if bar is not None:
        return bar.clause
    assert workers is not None
    share, answers = fallback_share(workers), workers.split_answers + workers.fallback_answers
    if answers < min_requests:
        return None
    minimum = min_accuracy_percent
    inaccurate = minimum is not None and profile.accuracy_percent >= minimum > served_accuracy_percent
    if share >= _LOST_SHARE or inaccurate:
        below = f", so that {served_accuracy_percent:.2f} % of accuracy are served" if inaccurate else ""
        return f"its fallback gave {100 * share:.0f} % of the answers{below}"
    return None


def fallback_share(workers: WorkerSet) -> float:
    """The share of this entry's answers that the fallback gave; without answers all if the workers are not linked."""
    split, fallback = max(0, workers.split_answers), max(0, workers.fallback_answers)
    return fallback / (split + fallback) if split + fallback else float(not workers.is_ready)


def served_accuracy(profile: VariantProfile, workers: WorkerSet | None, fallback: VariantProfile | None) -> float:
    """The accuracy in percent of what ``profile`` serves: of a split, with the answers that its fallback gave."""
    if profile.split is None or workers is None or workers.variant != profile.name or fallback is None:
        return profile.accuracy_percent
    share = fallback_share(workers)
    return (1 - share) * profile.accuracy_percent + share * fallback.accuracy_percent


def _bar(clause: str, *, yields: bool = True) -> Bar:
    return Bar(reason=Reason.PEERS_NOT_READY, clause=clause, yields=yields)


def _split(profile: VariantProfile) -> SplitProfile:
    assert profile.split is not None
    return profile.split
